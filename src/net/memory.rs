/// What takes at least this many bytes is mapped by itself: a packet buffer of the largest packet
/// (64 KiB and room around it), and no smaller thing that is allocated often.
const MAPPED_FROM: libc::c_int = 65_536;

/// Lets a large buffer take memory only as far as it is used. glibc would clear it when it is
/// allocated, since it does not know that fresh memory of its heap is zero: the hundreds of buffers
/// for super-packets would take tens of megabytes of a branch that only makes calls.
pub fn map_large_buffers() {
    // Sound: it sets a number in the allocator, under its lock. Elsewhere than in glibc, allocators
    // map large buffers anyway.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}
