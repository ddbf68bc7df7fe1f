//! A plugin that does everything a plugin must not do, when a test asks for it.
