"""Opens devices and files and yields FrameBatch; it never decodes and never transmits."""
