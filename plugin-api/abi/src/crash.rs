//! A note about whom the process died of.
//!
//! For: the daemon, which reads at its next start which plugin's code was running.
//! Promises: nothing is allocated or freed in the handler; whoever handled the signal before handles it
//! afterwards, so core dumps and messages stay. A signal that another process sent accuses nobody.
//! Never: keeps the process alive. The note names the innermost code on the stack that has a name, which is
//! where it happened and not always whose fault it was.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::IntoRawFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::code::{self, Code};

/// What a broken program dies of.
const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
];
/// Stands in a note for a call of `exit`.
const EXIT: &str = "exit";
/// Longest note in bytes: a cause, a time, and an owner, which is an id of 64 and a hash of 64.
const LONGEST: usize = 256;
/// Stack for handlers in bytes: what the kernel may push (11 KiB with the widest vectors and matrices), what the
/// unwinder uses, and what earlier handlers need. std gives its threads 8 KiB, others have none. It is not
/// touched, and so takes no memory, before it is used.
const STACK: usize = 64 << 10;
/// Seconds the unwinder may take before the process ends without its help: whoever crashed may have held a lock
/// of the loader.
const PATIENCE: u32 = 2;

/// What the handler uses; made before it is installed.
struct Watch {
    note: c_int,
    /// A child that was forked and has not become another program yet has the handler, too.
    pid: libc::pid_t,
    /// Who handled each of [`SIGNALS`] before.
    former: [libc::sigaction; SIGNALS.len()],
}

static WATCH: OnceLock<Watch> = OnceLock::new();
/// The first to die writes the note.
static WRITTEN: AtomicBool = AtomicBool::new(false);
static EXIT_EXPECTED: AtomicBool = AtomicBool::new(false);

/// How a process died, as its note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The signal's name, or `exit` for a call of that.
    pub cause: String,
    /// When, in seconds since 1970, UTC.
    pub at: i64,
    /// Whose code was running, as it was named; none if no plugin's was.
    pub owner: Option<String>,
}

impl Death {
    /// Reads a note; none if nothing was written.
    pub fn parse(note: &str) -> Option<Self> {
        let mut words = note.lines().next()?.splitn(3, ' ');
        let (cause, at, owner) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let owner = Some(owner.to_owned()).filter(|owner| !owner.is_empty());
        Some(Self { cause: cause.to_owned(), at, owner })
    }

    /// Whether somebody called `exit`.
    pub fn was_exit(&self) -> bool {
        self.cause == EXIT
    }
}

/// From now on a fatal signal, or a call of `exit`, leaves its note in the empty file `note`. The first call
/// of a process counts; later ones change nothing.
///
/// # Errors
/// When the system refuses the handler.
pub fn watch(note: File) -> io::Result<()> {
    if WATCH.get().is_some() {
        return Ok(());
    }
    let mut former = [const { MaybeUninit::<libc::sigaction>::zeroed() }; SIGNALS.len()];
    for ((signal, _), former) in SIGNALS.iter().zip(&mut former) {
        // SAFETY: asks for the present action and sets none.
        check(unsafe { libc::sigaction(*signal, ptr::null(), former.as_mut_ptr()) })?;
    }
    let watch = Watch {
        note: note.into_raw_fd(),
        // SAFETY: has no conditions.
        pid: unsafe { libc::getpid() },
        // SAFETY: all zeros are a valid `sigaction`, and the calls above have filled them.
        former: former.map(|former| unsafe { former.assume_init() }),
    };
    if WATCH.set(watch).is_err() {
        return Ok(()); // Somebody was faster.
    }
    code::name(watch_code(), None);
    // SAFETY: zeros are a valid `sigaction`; its fields are filled before it is used.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    action.sa_sigaction = on_signal as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for (signal, _) in SIGNALS {
        // SAFETY: the handler does only what a handler may, and everything it uses was made above.
        check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    }
    // SAFETY: `on_exit` neither unwinds nor returns anything.
    check(unsafe { libc::atexit(on_exit) })
}

/// The process ends soon, by `exit`, and nobody is to blame.
pub fn expect_exit() {
    EXIT_EXPECTED.store(true, Ordering::Relaxed);
}

/// Gives this thread a stack for signal handlers that is large enough, so that running out of its own stack
/// leaves a note, too.
pub fn provide_signal_stack() {
    thread_local!(static STACK_OF_THREAD: RefCell<Option<SignalStack>> = const { RefCell::new(None) });
    // Fails while the thread ends, which needs no stack any more.
    let _ = STACK_OF_THREAD.try_with(|stack| {
        let mut stack = stack.borrow_mut();
        if stack.is_none() {
            *stack = SignalStack::new();
        }
    });
}

/// Memory that a thread's handlers run on.
struct SignalStack(Vec<u8>);

impl SignalStack {
    fn new() -> Option<Self> {
        // SAFETY: asks for the present stack; zeros are a valid `stack_t`, which the call fills.
        let present = unsafe {
            let mut present = MaybeUninit::<libc::stack_t>::zeroed();
            libc::sigaltstack(ptr::null(), present.as_mut_ptr());
            present.assume_init()
        };
        if present.ss_flags & libc::SS_DISABLE == 0 && present.ss_size >= STACK {
            return None;
        }
        let mut memory = Vec::with_capacity(STACK);
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr() as *mut c_void, ss_flags: 0, ss_size: STACK };
        // SAFETY: the memory is that large, and is given back in `drop` before it is freed.
        (unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } == 0).then_some(Self(memory))
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let none =
            libc::stack_t { ss_sp: self.0.as_mut_ptr().cast(), ss_flags: libc::SS_DISABLE, ss_size: STACK };
        // SAFETY: switches the stack of this very thread off; thread-locals are dropped where they lived.
        unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) };
    }
}

/// Runs when the process has done something that it cannot survive.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(watch) = WATCH.get() else { return };
    let known = SIGNALS.iter().zip(&watch.former).find(|((number, _), _)| *number == signal);
    let Some(((_, name), former)) = known else { return };
    let sent = was_sent(info);
    if (!sent || sender(info) == watch.pid) && watch.is_first() {
        watch.leave_note(name, code::at(interrupted_at(context)));
    }
    pass_on(signal, info, context, former, sent);
}

/// Runs when somebody has called `exit`.
extern "C" fn on_exit() {
    if let Some(watch) = WATCH.get()
        && !EXIT_EXPECTED.load(Ordering::Relaxed)
        && watch.is_first()
    {
        watch.leave_note(EXIT, None);
    }
}

/// Lets the former handler do its work; the system's own ends the process and dumps its core.
fn pass_on(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
    former: &libc::sigaction,
    sent: bool,
) {
    if former.sa_sigaction == libc::SIG_DFL || former.sa_sigaction == libc::SIG_IGN {
        // SAFETY: puts back what was there. A fault happens again on return and then has its usual effect; a
        // signal that was sent does not, so it is sent again.
        unsafe {
            libc::sigaction(signal, former, ptr::null_mut());
            if sent {
                libc::raise(signal);
            }
        }
        return;
    }
    if former.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with this flag the field holds a function of this type, and the arguments are the kernel's.
        unsafe {
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                std::mem::transmute(former.sa_sigaction);
            handler(signal, info, context);
        }
    } else {
        // SAFETY: without the flag the field holds a function of this type.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(former.sa_sigaction) };
        handler(signal);
    }
    if !sent {
        return;
    }
    // std's handler restores the system's and returns, so that a fault happens again; what was sent does not.
    let mut present = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action, which fills the struct, and sends a signal.
    unsafe {
        libc::sigaction(signal, ptr::null(), present.as_mut_ptr());
        if present.assume_init().sa_sigaction == libc::SIG_DFL {
            libc::raise(signal);
        }
    }
}

impl Watch {
    /// Whether this process is the one that is watched, and nobody was here before.
    fn is_first(&self) -> bool {
        // SAFETY: has no conditions.
        self.pid == unsafe { libc::getpid() } && !WRITTEN.swap(true, Ordering::Relaxed)
    }

    /// Writes the note, with `owner` if it is known, else with whoever is found on the stack. The unwinder may
    /// die of what it finds there, so what is known is written before.
    fn leave_note(&self, cause: &str, owner: Option<&Code>) {
        let at = now();
        self.write_note(cause, at, owner);
        if owner.is_none() {
            // SAFETY: the alarm's usual effect is to end the process, which is about to end anyway.
            unsafe {
                libc::signal(libc::SIGALRM, libc::SIG_DFL);
                libc::alarm(PATIENCE);
            }
            let found = innermost();
            // SAFETY: has no conditions.
            unsafe { libc::alarm(0) };
            self.write_note(cause, at, found);
        }
    }

    fn write_note(&self, cause: &str, at: u64, owner: Option<&Code>) {
        let mut note = Note { text: [0; LONGEST], length: 0 };
        note.push(cause.as_bytes());
        note.push(b" ");
        note.push_number(at);
        note.push(b" ");
        note.push(owner.and_then(|code| code.owner.as_deref()).unwrap_or_default().as_bytes());
        note.push(b"\n");
        let text = note.text.get(..note.length).unwrap_or_default();
        // SAFETY: writes that many bytes of a buffer of ours. There is nobody to tell if it fails.
        unsafe { libc::pwrite(self.note, text.as_ptr().cast(), text.len(), 0) };
    }
}

/// The innermost named code on the stack, without what is there only because of the handler: that comes first
/// and is followed by code of the system.
fn innermost() -> Option<&'static Code> {
    // The unwinder that panics use; std links it.
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            each: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
            argument: *mut c_void,
        ) -> c_int;
        fn _Unwind_GetIP(frame: *mut c_void) -> usize;
    }
    /// `_URC_NO_REASON`: the next frame, please.
    const ON: c_int = 0;
    /// `_URC_NORMAL_STOP`.
    const STOP: c_int = 4;

    struct Search {
        left_the_handler: bool,
        found: Option<&'static Code>,
    }

    extern "C" fn each(frame: *mut c_void, search: *mut c_void) -> c_int {
        // SAFETY: the unwinder passes its frame and the pointer it was given, which nobody else uses meanwhile.
        let (address, search) = unsafe { (_Unwind_GetIP(frame), &mut *search.cast::<Search>()) };
        // A return address is behind the call, which may be the last instruction of its function.
        search.found = code::at(address.wrapping_sub(1));
        match search.found {
            None => search.left_the_handler = true,
            Some(_) if search.left_the_handler => return STOP,
            Some(_) => search.found = None,
        }
        ON
    }

    let mut search = Search { left_the_handler: false, found: None };
    // SAFETY: `each` neither unwinds nor keeps what it is given.
    unsafe { _Unwind_Backtrace(each, ptr::from_mut(&mut search).cast()) };
    search.found
}

/// A line that is put together without memory from anywhere.
struct Note {
    text: [u8; LONGEST],
    length: usize,
}

impl Note {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.text.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn push_number(&mut self, number: u64) {
        if number >= 10 {
            self.push_number(number / 10);
        }
        self.push(&[b'0' + (number % 10) as u8]);
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct; one of the few calls a handler may make.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time.tv_sec.unsigned_abs()
}

/// Whether a signal came from a process (`kill`, `abort`) and not from a fault.
fn was_sent(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel passes a valid struct with this handler's flags.
    let code = unsafe { (*info).si_code };
    // SI_USER, SI_QUEUE and SI_TKILL are none or less on Linux. On macOS they begin at 0x10001, and codes of
    // faults are small on both.
    code <= 0 || (cfg!(target_os = "macos") && code > 0xffff)
}

fn sender(info: *const libc::siginfo_t) -> libc::pid_t {
    // SAFETY: as above; a signal that was sent has a sender.
    unsafe { (*info).si_pid() }
}

/// The instruction at which the signal came; zero on machines for which there are no plugins.
fn interrupted_at(context: *const c_void) -> usize {
    // SAFETY: the kernel passes a valid context to a handler with SA_SIGINFO.
    let registers = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    let instruction = registers.gregs[libc::REG_RIP as usize];
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    let instruction = registers.pc;
    // SAFETY: on this system it is a pointer, which the kernel fills.
    #[cfg(all(target_os = "macos", target_arch = "x86_64"))]
    let instruction = unsafe { (*registers).__ss.__rip };
    // SAFETY: as above.
    #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
    let instruction = unsafe { (*registers).__ss.__pc };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let instruction = {
        let _ = registers;
        0
    };
    instruction as usize
}

/// An address in this program's own code.
fn watch_code() -> usize {
    watch as fn(File) -> io::Result<()> as usize
}

fn check(returned: c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
