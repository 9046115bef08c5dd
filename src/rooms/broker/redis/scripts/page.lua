-- Reads on in a room's presence.
--
-- KEYS: presence. ARGV: where, and how many fields.
-- Returns the presence's version, where to read on or 0, and fields with their values.
return {fields_from(KEYS[1], ARGV[1], tonumber(ARGV[2]))}
