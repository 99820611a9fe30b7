//! Giving memory back after much of it was used for a short time.

/// Returns freed memory to the system. The first lists of a large cluster pass through here once, and the allocator
/// would keep what they took for good.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
