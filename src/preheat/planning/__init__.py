"""From packages to a plan: detected, resolved, locked, sized."""
