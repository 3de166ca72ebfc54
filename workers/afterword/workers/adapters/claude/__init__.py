"""The one door to the anthropic SDK."""
