"""The values everything else is said in. Nothing here touches the world."""
