"""The devices that were seen on the segment, and whether those with a role are who they say. Local, passive."""
