"""The tables that de-identification works by: PS3.15 E.1-1, types of attributes in their IODs, safe private elements, words."""
