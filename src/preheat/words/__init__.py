"""Floor 0: the values everything else is said in. Nothing here touches the world."""
