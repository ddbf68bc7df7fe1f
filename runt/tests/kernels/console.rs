//! `runt jupyter console`.

use crate::world::{World, number};

#[test]
fn what_is_piped_in_runs_line_by_line() {
    let Some(world) = World::new() else { return };
    let said = world.runt_with_input(&["jupyter", "console", "python3"], "1+1\n").good();
    assert_eq!(said.out, "Out[1]: 2\n");
    let code = "def twice(x):\n    print('x is', x)\n    return 2 * x\n\ntwice(input('what? '))\nword\nprint('end', end='')";
    let said = world.runt_with_input(&["jupyter", "console", "python3"], code);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.out, "what? x is word\nOut[2]: 'wordword'\nend\n");
    let said = world.runt_with_input(&["jupyter", "console", "python3"], "1/0\n'on'\n");
    assert!(said.code == 1 && said.err.contains("ZeroDivisionError"), "{}", said.err);
    assert_eq!(said.out, "Out[2]: 'on'\n");
    assert_eq!(std::fs::read_dir(world.home().join("run/jupyter")).unwrap().count(), 0);
}

#[test]
fn an_image_is_a_link_and_a_command_will_do() {
    let Some(world) = World::new() else { return };
    let code = "from IPython.display import display\n\
                display({'image/png': 'aGVsbG8=', 'text/plain': '<Figure>'}, raw=True)\n";
    let python = std::env::var("RUNTIMED_TEST_KERNEL_PYTHON").unwrap();
    let command = format!("{python} -m ipykernel_launcher -f {{connection_file}}");
    let said = world.runt_with_input(&["jupyter", "console", "--cmd", &command], code).good();
    let path = said.out.trim_end().strip_prefix("[image/png, 5 bytes] file://").unwrap().to_owned();
    assert_eq!(std::fs::read(path).unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_of_a_notebook_is_shared() {
    let Some(world) = World::new() else { return };
    world.runt(&["daemon", "restart"]).good();
    let session = world.notebook("a.ipynb").await;
    let pid = number(&session, "import os; kept = 41; os.getpid()").await;
    let path = world.home().join("work/a.ipynb");
    let id = session.notebook_id().unwrap();
    for name in [path.to_str().unwrap(), "a.ipynb", &id, &pid.to_string()] {
        let said =
            world.runt_with_input(&["jupyter", "console", "--existing", name], "kept += 1\nos.getpid()\n");
        assert!(said.good().out.ends_with(&format!("]: {pid}\n")), "{name}");
    }
    assert_eq!(number(&session, "kept").await, 45);
    let said = world.runt_with_input(&["jupyter", "console", "--existing", "b.ipynb"], "");
    assert!(said.err.contains("There is no kernel or open notebook b.ipynb"), "{}", said.err);
}

/// Types into a console on a pseudo terminal. Arguments: program, arguments. Says what it reads; a line `>text` of the
/// script waits for that text, any other line is typed.
const TYPIST: &str = r#"
import codecs, os, pty, re, signal, sys
# One that waits for what never comes says what came.
signal.alarm(180)
signal.signal(signal.SIGALRM, lambda *_: sys.exit('waited too long; shown:\n' + plain(shown).decode()))
script = sys.stdin.read().split('\n')
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
import fcntl, struct, termios
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
seen, shown = b'', b''
def more():
    global seen, shown
    try:
        piece = os.read(fd, 65536)
    except OSError:
        piece = b''
    # A terminal tells where its cursor is.
    for _ in range(piece.count(b'\x1b[6n')):
        os.write(fd, b'\x1b[1;1R')
    seen += piece
    shown += piece
    return piece
plain = lambda text: re.sub(rb'\x1b\[[0-9;?]*[a-zA-Z]|\x1b[78=>]', b'', text)
for line in script:
    if line.startswith('>'):
        while line[1:].encode() not in plain(seen):
            if not more():
                sys.stderr.write(plain(shown).decode())
                sys.exit('ended before ' + line)
        at = plain(seen).index(line[1:].encode()) + len(line[1:])
        seen = plain(seen)[at:]
    else:
        os.write(fd, codecs.decode(line, 'unicode_escape').encode())
while more():
    pass
sys.stdout.write(shown.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn somebody_types_completes_interrupts_and_leaves() {
    let Some(world) = World::new() else { return };
    let program = world.command("runt");
    let typed = |arguments: &[&str], script: &str, color: bool| {
        let mut python = world.python(TYPIST);
        python.arg(program.get_program()).args(["jupyter", "console"]).args(arguments).env("TERM", "xterm");
        if !color {
            python.env("NO_COLOR", "1");
        }
        world.said_with_input(python, script)
    };
    // Several lines, completion, an answer to a question, an interrupt, the history, the end.
    let script = "\
>In [1]: 
%config IPCompleter.use_jedi = False\\r
>In [2]: 
def twice(x):\\r
>...: 
    return 2 * x\\r
>...: 
\\r
>In [3]: 
twi\\t
>twice
(21)\\r
>Out[3]: 42
>In [4]: 
input('na' + 'me? ')\\r
>name? 
Ana\\r
>Out[4]: 'Ana'
>In [5]: 
import time; print('be' + 'gun'); time.sleep(600)\\r
>begun
\\x03
>KeyboardInterrupt
>In [6]: 
thrown away\\x03
>In [6]: 
\\x1b[A\\x1b[A\\r
>Out[6]: 'Ana'
>In [7]: 
\\x04
>Shutting down kernel...
>Done.";
    // The second answer is for the question that comes back with the history.
    let script = script.replace("\\x1b[A\\x1b[A\\r\n", "\\x1b[A\\x1b[A\\r\n>name? \nAna\\r\n");
    let said = typed(&["python3"], &script, true);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert!(
        said.out.contains("python3 console") && said.out.contains("\x1b[1;32mdef\x1b[0m"),
        "{}",
        said.out
    );
    assert_eq!(std::fs::read_dir(world.home().join("run/jupyter")).unwrap().count(), 0);
    let history = std::fs::read_to_string(world.home().join(".cache/runt/console-history")).unwrap();
    assert!(history.contains("twice(21)") && !history.contains("thrown"), "{history}");

    let said = typed(
        &["python3"],
        ">In [1]: \n1/0\\r\n>ZeroDivisionError\n>In [2]: \nimport os; os._exit(3)\\r\n>ended",
        false,
    );
    assert_eq!(said.code, 1, "{}\n{}", said.out, said.err);
    assert!(
        said.out.contains("The kernel has ended: exit status: 3") && !said.out.contains("\x1b[3"),
        "{}\n{}",
        said.out,
        said.err
    );
}
