//! Whose machine code is at an address.
//!
//! For: the crash note, which asks from within a signal handler.
//! Promises: a look-up takes no lock and allocates nothing; what was named stays named, as libraries stay
//! loaded.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A range of executable memory. Never freed, never changed once it can be found.
pub(crate) struct Code {
    start: usize,
    end: usize,
    /// A plugin, or none for the program itself.
    pub(crate) owner: Option<String>,
    next: *const Code,
}

/// The range that was named last; the others follow.
static NAMED: AtomicPtr<Code> = AtomicPtr::new(ptr::null_mut());

/// Names the code of the library, or of the program, that has `address` anywhere in it.
pub(crate) fn name(address: usize, owner: Option<&str>) {
    for (start, end) in executable_ranges(address) {
        let owner = owner.map(str::to_owned);
        let code = Box::into_raw(Box::new(Code { start, end, owner, next: ptr::null() }));
        let mut head = NAMED.load(Ordering::Acquire);
        loop {
            // SAFETY: nobody else has the pointer yet; it was made two lines above.
            unsafe { (*code).next = head };
            match NAMED.compare_exchange_weak(head, code, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
    }
}

/// Whose code is at `address`, if it was named. Safe in a signal handler.
pub(crate) fn at(address: usize) -> Option<&'static Code> {
    let mut next: *const Code = NAMED.load(Ordering::Acquire);
    // SAFETY: every pointer in the list came from a box that is never freed, and is written before it can be
    // found here.
    while let Some(code) = unsafe { next.as_ref() } {
        if (code.start..code.end).contains(&address) {
            return Some(code);
        }
        next = code.next;
    }
    None
}

/// The executable ranges of the object that is mapped round `address`.
#[cfg(not(target_os = "macos"))]
fn executable_ranges(address: usize) -> Vec<(usize, usize)> {
    struct Search {
        address: usize,
        found: Vec<(usize, usize)>,
    }

    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        search: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: `search` is the pointer given to `dl_iterate_phdr` below, which calls nobody else with it.
        let search = unsafe { &mut *search.cast::<Search>() };
        // SAFETY: the loader passes a valid object whose header table has that many entries.
        let (base, headers) = unsafe {
            let info = &*info;
            (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
        };
        let range = |header: &libc::Elf64_Phdr| {
            let start = base.wrapping_add(header.p_vaddr as usize);
            (start, start.wrapping_add(header.p_memsz as usize))
        };
        let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        if !loaded().map(range).any(|(start, end)| (start..end).contains(&search.address)) {
            return 0;
        }
        search.found = loaded().filter(|header| header.p_flags & libc::PF_X != 0).map(range).collect();
        1
    }

    let mut search = Search { address, found: Vec::new() };
    // SAFETY: `look` neither unwinds nor keeps what it is given.
    unsafe { libc::dl_iterate_phdr(Some(look), ptr::from_mut(&mut search).cast()) };
    search.found
}

/// The executable range of the image that is mapped round `address`: its text segment.
#[cfg(target_os = "macos")]
fn executable_ranges(address: usize) -> Vec<(usize, usize)> {
    // <mach-o/getsect.h>, part of libSystem.
    unsafe extern "C" {
        fn getsegmentdata(
            image: *const c_void,
            segment: *const libc::c_char,
            size: *mut libc::c_ulong,
        ) -> *const u8;
    }

    let mut image = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `dladdr` only looks the address up, and fills the struct if it returns anything but zero. All
    // zeros are a valid `Dl_info`: pointers that are null.
    let image = unsafe {
        libc::dladdr(address as *const c_void, image.as_mut_ptr());
        image.assume_init()
    };
    if image.dli_fbase.is_null() {
        return Vec::new();
    }
    let mut size = 0;
    // SAFETY: `dli_fbase` is the header of a loaded image, and the name ends with a zero.
    let start = unsafe { getsegmentdata(image.dli_fbase, c"__TEXT".as_ptr(), &raw mut size) } as usize;
    vec![(start, start + size as usize)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_found_by_any_address_in_it_and_nothing_else_is() {
        let here = code_is_found_by_any_address_in_it_and_nothing_else_is as fn() as usize;
        static DATA: u8 = 0;
        name(&raw const DATA as usize, Some("this test"));
        assert_eq!(at(here).unwrap().owner.as_deref(), Some("this test"));
        let heap = Box::new(0u8);
        assert!(at(&raw const *heap as usize).is_none() && at(0).is_none());
        name(&raw const *heap as usize, Some("nobody"));
        assert!(at(&raw const *heap as usize).is_none());
    }
}
