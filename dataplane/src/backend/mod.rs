//! Backends: each writes resolved frontends down in one kernel mechanism's terms.
//!
//! The same six files in each: `ir` (what can be said), `compile` (resolved frontends to it), `diff` (the smallest
//! transaction), `render` (to and from the kernel's format), `kernel` (the only I/O), and `mod` (the owner of what is
//! desired and what is applied).

pub mod nft;
