"""Brings the history of a view online: the newest row of every entity, whatever else is written meanwhile."""
