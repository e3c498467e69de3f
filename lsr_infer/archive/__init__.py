"""Segments archives of videos on one machine or a Ray cluster, so that no clip is lost or done twice."""
