"""The profiles that come with hilgate, and the JSON Schema that editors check profiles by."""
