//! Ways around a limit, or of making it strike somebody else.
