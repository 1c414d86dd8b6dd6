"""De-identification by PS3.15 Annex E, with keyed pseudonyms and a second look at what is about to leave."""
