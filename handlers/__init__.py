"""The commands, one file each: an async function from a Request to a Reply. They know no platform and no SQL."""
