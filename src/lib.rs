//! vitq.
