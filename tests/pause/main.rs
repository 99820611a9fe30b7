//! The first process of a pod: holds the pod's namespaces open, reaps orphans, leaves on TERM or INT.
//!
//! It waits for signals instead of handling them: a blocked signal is queued even for process 1 of a
//! PID namespace, whose unhandled signals are otherwise dropped. Tested in `tests/tests/runtime_lab.rs`.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;

#[cfg(target_arch = "x86_64")]
mod nr {
    pub const SIGPROCMASK: usize = 14;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const WAIT4: usize = 61;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod nr {
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
    pub const EXIT_GROUP: usize = 94;
}

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start: and rsp, -16", "call {main}", main = sym pause);

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start: bl {main}", main = sym pause);

#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the callers pass pointers to live values or null.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b,
             in("rdx") c, in("r10") d, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the callers pass pointers to live values or null.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b,
             in("x2") c, in("x3") d, options(nostack));
    }
    result
}

extern "C" fn pause() -> ! {
    let awaited: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    let set = &raw const awaited as usize;
    // SAFETY: `awaited` outlives both calls; every other pointer is null, which the kernel allows.
    unsafe { syscall(nr::SIGPROCMASK, SIG_BLOCK, set, 0, 8) };
    loop {
        // SAFETY: as above.
        match unsafe { syscall(nr::SIGTIMEDWAIT, set, 0, 0, 8) } {
            signal if signal == SIGTERM as isize || signal == SIGINT as isize => break,
            // One signal may stand for many children: reap until none is left.
            // SAFETY: null status and usage pointers.
            _ => while unsafe { syscall(nr::WAIT4, usize::MAX, 0, WNOHANG, 0) } > 0 {},
        }
    }
    loop {
        // SAFETY: ends the process.
        unsafe { syscall(nr::EXIT_GROUP, 0, 0, 0, 0) };
    }
}

#[panic_handler]
fn never(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
