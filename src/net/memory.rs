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

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;
    use crate::packet::SitePacket;

    /// How many of the whole pages of these bytes are in memory.
    fn resident_pages(bytes: &[u8]) -> usize {
        const PAGE: usize = 4_096;
        let first = bytes.as_ptr().addr().next_multiple_of(PAGE);
        let pages = (bytes.as_ptr().addr() + bytes.len() - first) / PAGE;
        let mut resident = vec![0; pages];
        // Sound: the pages lie within `bytes`, and one byte of `resident` is written for each.
        let answer = unsafe { libc::mincore(first as *mut libc::c_void, pages * PAGE, resident.as_mut_ptr()) };
        assert_eq!(answer, 0);
        resident.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn a_buffer_for_super_packets_takes_memory_only_as_far_as_it_is_used() {
        map_large_buffers();
        // What other tests have used and returned may be given out first.
        let mut buffers: Vec<SitePacket> = (0..1_024).map(|_| SitePacket::with_capacity(65_536)).collect();
        let is_fresh = |buffer: &mut SitePacket| resident_pages(buffer.packet.reset()) == 0;
        let fresh: Vec<&mut SitePacket> = buffers.iter_mut().filter_map(|one| is_fresh(one).then_some(one)).collect();
        assert!(fresh.len() > 64, "{} of 1,024 are fresh", fresh.len());
        for buffer in fresh {
            let room = buffer.packet.reset();
            room[..10_000].fill(1);
            assert!((1..=3).contains(&resident_pages(room)));
        }
    }
}
