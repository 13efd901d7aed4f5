"""Processes of ours, and what they may take: time, processors, memory."""
