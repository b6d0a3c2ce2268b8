"""Networks that users give: how they are read, and which minimum they are at or near."""
