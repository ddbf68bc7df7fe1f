//! A terminal without a width.
//!
//! For: turning what a program prints into the text a person would see, progress bars resolved.
//! Promises: text without control sequences comes out byte for byte, tabs, trailing blanks and long
//! lines included; how the input is cut into chunks does not matter; appending costs the same however
//! much is there; memory beyond the settled text is bounded.
//! Never: loses a line. Clearing the screen leaves what was on it, as scrolling does.
//!
//! Honored: CR, BS, LF, tab, CSI A-H, J, K, f and m. Other sequences are dropped, other control
//! characters kept. One code point takes one column.

use std::collections::VecDeque;

use super::style::{CLOSE, Style};

/// Lines above the last one that the cursor can reach. Source: LINES of the kernels' environment.
const HEIGHT: usize = 100;

/// Columns after which a line goes on in another row, joined again when it is read. It bounds what a
/// carriage return can reach, and so the cost of an endless line; no terminal is as wide.
const MAX_COLUMNS: usize = 4096;

/// Begins the control characters beyond ASCII in UTF-8, and a few others.
const BEYOND_ASCII: u8 = 0xC2;

/// What was printed to one stream, as text.
pub(super) struct Terminal {
    parser: vte::Parser,
    screen: Screen,
    /// A control sequence was printed, so that the parser may be in the middle of one.
    escaped: bool,
}

impl Terminal {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { parser: vte::Parser::new(), screen: Screen::new(), escaped: false }
    }

    /// Prints `text`.
    pub(super) fn feed(&mut self, text: &str) {
        self.escaped |= text.bytes().any(|byte| byte == 0x1b || byte == BEYOND_ASCII);
        let rest = if !self.escaped && is_plain(text) { self.scroll_through(text) } else { text };
        self.parser.advance(&mut self.screen, rest.as_bytes());
    }

    /// Takes plain lines that run through the whole screen, without looking at each character: a flood is mostly those.
    /// Returns what is still to be printed.
    fn scroll_through<'a>(&mut self, text: &'a str) -> &'a str {
        let ends = |(at, _): (usize, &str)| at + 1;
        let Some(last_lines) = text.rmatch_indices('\n').nth(HEIGHT).map(ends) else { return text };
        // The first one may go over text that is there.
        let first = text.find('\n').map_or(last_lines, |at| at + 1);
        let (Some(line), Some(middle), Some(last)) =
            (text.get(..first), text.get(first..last_lines), text.get(last_lines..))
        else {
            return text;
        };
        self.parser.advance(&mut self.screen, line.as_bytes());
        if !self.screen.is_on_new_line() {
            return text.get(first..).unwrap_or_default();
        }
        self.screen.scroll_all();
        self.screen.settled.push_str(middle);
        last
    }

    /// Moves lines the cursor has left to [`Terminal::settled`]. They come back if the cursor does.
    pub(super) fn settle(&mut self) {
        self.screen.settle();
    }

    /// The text of the first lines, not to be expected to change.
    pub(super) fn settled(&self) -> &str {
        &self.screen.settled
    }

    /// The text of the other lines.
    pub(super) fn live(&self) -> String {
        let mut live = String::new();
        self.screen.render(self.screen.settled_rows.., &mut live);
        live
    }

    /// How many bytes of the settled text never changed since the last call.
    pub(super) fn take_unchanged(&mut self) -> usize {
        std::mem::replace(&mut self.screen.unchanged, usize::MAX).min(self.screen.settled.len())
    }

    /// Drops the first `bytes` of the settled text; they are kept elsewhere and cannot change any more.
    pub(super) fn forget(&mut self, bytes: usize) {
        self.screen.forget(bytes);
    }
}

struct Screen {
    /// Text of the rows above `rows`, and of the first `settled_rows` of them.
    settled: String,
    /// The shortest `settled` has been since somebody asked.
    unchanged: usize,
    /// The rows the cursor can reach: at least one, at most [`HEIGHT`].
    rows: VecDeque<Row>,
    settled_rows: usize,
    /// The cursor. It may be right of its row's end, and below the last row.
    row: usize,
    column: usize,
    style: Style,
    /// How far above the last row the program ever wrote. A program that draws three progress bars
    /// will do it again, so that many rows do not settle.
    reach: usize,
}

#[derive(Default)]
struct Row {
    cells: Vec<Cell>,
    /// Whether the line goes on in the next row.
    wrapped: bool,
    /// Where its text starts in `settled`, once it is there.
    start: usize,
}

#[derive(Clone, Copy)]
struct Cell {
    character: char,
    style: Style,
}

/// What padding consists of.
const BLANK: Cell = Cell { character: ' ', style: Style::PLAIN };

impl Screen {
    fn new() -> Self {
        Self {
            settled: String::new(),
            unchanged: usize::MAX,
            rows: VecDeque::from([Row::default()]),
            settled_rows: 0,
            row: 0,
            column: 0,
            style: Style::PLAIN,
            reach: 0,
        }
    }

    fn put(&mut self, character: char) {
        if self.column >= MAX_COLUMNS {
            self.edit(|row, _| row.wrapped = true);
            self.next_row();
        }
        let cell = Cell { character, style: self.style };
        self.edit(|row, column| {
            if row.cells.len() < column {
                row.cells.resize(column, BLANK);
            }
            match row.cells.get_mut(column) {
                Some(old) => *old = cell,
                None => row.cells.push(cell),
            }
        });
        self.column += 1;
    }

    /// Changes the cursor's row, taking it back from the settled text.
    fn edit(&mut self, change: impl FnOnce(&mut Row, usize)) {
        while self.rows.len() <= self.row {
            self.rows.push_back(Row::default());
        }
        self.unsettle(self.row);
        self.reach = self.reach.max(self.rows.len() - 1 - self.row);
        if let Some(row) = self.rows.get_mut(self.row) {
            change(row, self.column);
        }
    }

    fn line_feed(&mut self) {
        if self.row >= self.rows.len() {
            self.edit(|_, _| ());
        }
        self.next_row();
    }

    fn next_row(&mut self) {
        self.column = 0;
        self.row += 1;
        if self.row < self.rows.len() {
            return;
        }
        self.rows.push_back(Row::default());
        if self.rows.len() > HEIGHT {
            self.row -= 1;
            self.scroll();
        }
    }

    /// Takes the first row off the screen.
    fn scroll(&mut self) {
        if self.settled_rows == 0 {
            self.settle_next();
        }
        self.settled_rows = self.settled_rows.saturating_sub(1);
        self.rows.pop_front();
    }

    fn settle(&mut self) {
        let end = self.row.min((self.rows.len() - 1).saturating_sub(self.reach));
        while self.settled_rows < end {
            self.settle_next();
        }
    }

    fn settle_next(&mut self) {
        let start = self.settled.len();
        let mut settled = std::mem::take(&mut self.settled);
        self.render(self.settled_rows..self.settled_rows + 1, &mut settled);
        self.settled = settled;
        if let Some(row) = self.rows.get_mut(self.settled_rows) {
            row.start = start;
        }
        self.settled_rows += 1;
    }

    /// Takes `row` and those below back from the settled text.
    fn unsettle(&mut self, row: usize) {
        if row < self.settled_rows
            && let Some(start) = self.rows.get(row).map(|row| row.start)
        {
            self.settled.truncate(start);
            self.unchanged = self.unchanged.min(start);
            self.settled_rows = row;
        }
    }

    fn forget(&mut self, bytes: usize) {
        self.settled.drain(..bytes.min(self.settled.len()));
        while self.settled_rows > 0 && self.rows.front().is_some_and(|row| row.start < bytes) {
            self.scroll();
            self.row = self.row.saturating_sub(1);
        }
        for row in self.rows.iter_mut().take(self.settled_rows) {
            row.start -= bytes;
        }
    }

    fn render(&self, rows: impl std::ops::RangeBounds<usize>, out: &mut String) {
        let last = self.rows.len() - 1;
        for (index, row) in self.rows.iter().enumerate().filter(|(index, _)| rows.contains(index)) {
            row.render(out);
            if index != last && !row.wrapped {
                out.push('\n');
            }
        }
    }

    fn erase_in_line(&mut self, mode: u16) {
        self.edit(|row, column| match mode {
            0 => {
                row.cells.truncate(column);
                row.wrapped = false;
            }
            1 => row.cells.iter_mut().take(column + 1).for_each(|cell| *cell = BLANK),
            2 => *row = Row::default(),
            _ => {}
        });
    }

    fn erase_in_display(&mut self, mode: u16) {
        match mode {
            0 => {
                self.erase_in_line(0);
                self.rows.truncate(self.row + 1);
            }
            1 => {
                let row = self.row.min(self.rows.len() - 1);
                self.unsettle(0);
                self.rows.iter_mut().take(row).for_each(|row| *row = Row::default());
                self.erase_in_line(1);
            }
            2 => self.scroll_all(),
            _ => {}
        }
    }

    /// Clears the screen by moving everything on it out of reach.
    fn scroll_all(&mut self) {
        if self.rows.back().is_some_and(|row| !row.cells.is_empty()) {
            self.rows.push_back(Row::default());
        }
        while self.rows.len() > 1 {
            self.scroll();
        }
        self.row = 0;
    }

    /// Whether the cursor is below everything that was printed.
    fn is_on_new_line(&self) -> bool {
        self.row + 1 == self.rows.len()
            && self.column == 0
            && self.rows.back().is_some_and(|row| row.cells.is_empty())
    }

    fn go_to_row(&mut self, row: usize) {
        self.row = row.min(HEIGHT - 1);
    }
}

impl vte::Perform for Screen {
    fn print(&mut self, character: char) {
        self.put(character);
    }

    fn execute(&mut self, byte: u8) {
        /// Distance of tab stops. Source: every terminal's default.
        const TAB: usize = 8;
        match byte {
            b'\n' => self.line_feed(),
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            // Over text that is there a tab only moves.
            b'\t' if self.rows.get(self.row).is_some_and(|row| self.column < row.cells.len()) => {
                self.column = (self.column / TAB + 1) * TAB;
            }
            _ => self.put(char::from(byte)),
        }
    }

    fn csi_dispatch(&mut self, params: &vte::Params, intermediates: &[u8], _ignore: bool, action: char) {
        if !intermediates.is_empty() {
            return;
        }
        let param = |index| params.iter().nth(index).and_then(|param| param.first().copied()).unwrap_or(0);
        let count = usize::from(param(0).max(1));
        match action {
            'A' | 'F' => self.row = self.row.saturating_sub(count),
            'B' | 'E' => self.go_to_row(self.row + count),
            'C' => self.column += count,
            'D' => self.column = self.column.saturating_sub(count),
            'G' => self.column = count - 1,
            'H' | 'f' => {
                self.go_to_row(count - 1);
                self.column = usize::from(param(1).max(1)) - 1;
            }
            'J' => self.erase_in_display(param(0)),
            'K' => self.erase_in_line(param(0)),
            'm' => self.style.apply(params),
            _ => {}
        }
        if matches!(action, 'E' | 'F') {
            self.column = 0;
        }
        self.column = self.column.min(MAX_COLUMNS);
    }
}

/// Whether `text` is printed as it is, one character after the other.
fn is_plain(text: &str) -> bool {
    let special = |byte: u8| (byte < b' ' && byte != b'\n' && byte != b'\t') || byte == 0x7f;
    !text.bytes().any(|byte| special(byte) || byte == BEYOND_ASCII)
}

impl Row {
    fn render(&self, out: &mut String) {
        let mut style = Style::PLAIN;
        for cell in &self.cells {
            if cell.style != style {
                if style != Style::PLAIN {
                    out.push_str(CLOSE);
                }
                cell.style.open(out);
                style = cell.style;
            }
            out.push(cell.character);
        }
        if style != Style::PLAIN {
            out.push_str(CLOSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(terminal: &Terminal) -> String {
        [terminal.settled(), &terminal.live()].concat()
    }

    fn shown(text: &str) -> String {
        let mut terminal = Terminal::new();
        terminal.feed(text);
        let before = read(&terminal);
        terminal.settle();
        assert_eq!(read(&terminal), before, "settling changes no text");
        before
    }

    #[test]
    fn control_sequences_do_what_they_do_on_a_terminal() {
        for (input, text) in [
            ("\r  0%\r 50%\r100%\n", "100%\n"),
            ("abc\u{8}\u{8}X\n", "aXc\n"),
            ("long line\rshort\u{1b}[K", "short"),
            ("abc\u{1b}[1K", "   "),
            ("abc\u{1b}[2K\rx", "x"),
            ("one\ntwo\u{1b}[A\u{1b}[2KX", "   X\ntwo"),
            ("one\ntwo\u{1b}[1FX\u{1b}[1EY", "Xne\nYwo"),
            ("a\nb\nc\u{1b}[2A\u{1b}[J", "a"),
            ("a\nb\n\u{1b}[2J\u{1b}[Hc\n", "a\nb\nc\n"),
            ("a\nb\u{1b}[1JX", "\n X"),
            ("abc\u{1b}[2DX\u{1b}[3CY", "aXc  Y"),
            ("abc\u{1b}[5Gx\u{1b}[1Gy", "ybc x"),
            ("a\u{1b}[2;3Hb", "a\n  b"),
            ("\u{1b}[1;3Hx\u{1b}[Hy", "y x"),
            ("a\u{1b}[Bb", "a\n b"),
            ("t\tab", "t\tab"),
            ("one\rt\tab", "tne     ab"),
            ("\u{1b}[?25lx\u{1b}[?25h\u{1b}]0;title\u{7}y\u{1b}(B", "xy"),
            ("ring\u{7} \u{0} \u{c}", "ring\u{7} \u{0} \u{c}"),
            ("a\r\nb\r\n", "a\nb\n"),
        ] {
            assert_eq!(shown(input), text, "{input:?}");
        }
    }

    #[test]
    fn styles_are_kept_in_one_form() {
        for (input, text) in [
            ("\u{1b}[31mred\u{1b}[39m plain", "\u{1b}[31mred\u{1b}[0m plain"),
            ("\u{1b}[1m\u{1b}[4mbu\u{1b}[22mu\u{1b}[m", "\u{1b}[1;4mbu\u{1b}[0m\u{1b}[4mu\u{1b}[0m"),
            ("\u{1b}[97;101mx", "\u{1b}[97;101mx\u{1b}[0m"),
            (
                "\u{1b}[38;5;208mo\u{1b}[0m \u{1b}[48;2;1;2;3mb",
                "\u{1b}[38;5;208mo\u{1b}[0m \u{1b}[48;2;1;2;3mb\u{1b}[0m",
            ),
            (
                "\u{1b}[38:2::1:2:3mx\u{1b}[4:0;38:5:7my",
                "\u{1b}[38;2;1;2;3mx\u{1b}[0m\u{1b}[38;5;7my\u{1b}[0m",
            ),
            ("\u{1b}[31ma\nb", "\u{1b}[31ma\u{1b}[0m\n\u{1b}[31mb\u{1b}[0m"),
            ("\u{1b}[38;5;999;38;1mx", "x"),
        ] {
            assert_eq!(shown(input), text, "{input:?}");
            assert_eq!(shown(text), text, "the normal form stays");
        }
    }

    #[test]
    fn the_cursor_reaches_a_hundred_lines() {
        let lines: String = (0..150).map(|line| format!("{line}\n")).collect();
        let text = shown(&format!("{lines}\u{1b}[500AX"));
        assert!(text.contains("\n50\nX1\n52\n"), "{text}");
    }

    #[test]
    fn an_endless_line_is_settled_as_it_grows() {
        let mut terminal = Terminal::new();
        for _ in 0..100 {
            terminal.feed(&".".repeat(1_000));
            terminal.settle();
            assert!(terminal.live().len() <= MAX_COLUMNS);
        }
        assert_eq!(read(&terminal), ".".repeat(100_000));
    }

    /// Text of printable pieces and of the sequences that matter.
    fn anything() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-c é日🎉\t ]{0,6}",
            2 => Just("\n".to_owned()),
            1 => Just("\r".to_owned()),
            1 => Just("\u{8}".to_owned()),
            2 => "\u{1b}\\[[0-9]{0,2}(;[0-9]{0,3})?[A-HJKfm]",
            1 => "\\PC{0,4}",
            1 => any::<Vec<char>>().prop_map(|characters| characters.into_iter().take(5).collect()),
        ];
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn plain_text_comes_out_as_it_went_in(text in "([a-zé日🎉\t .]{0,20}\n?){0,300}") {
            prop_assert_eq!(shown(&text), text);
        }

        #[test]
        fn neither_chunks_nor_settling_matter(text in anything(), cuts in proptest::collection::vec(0usize..200, 0..12)) {
            let mut terminal = Terminal::new();
            let mut rest = text.as_str();
            for cut in cuts {
                let (chunk, later) = rest.split_at(crate::outputs::boundary::floor(rest, cut));
                terminal.feed(chunk);
                let before = read(&terminal);
                terminal.settle();
                prop_assert_eq!(read(&terminal), before);
                rest = later;
            }
            terminal.feed(rest);
            prop_assert_eq!(read(&terminal), shown(&text));
        }

        #[test]
        fn a_flood_is_the_same_line_by_line(
            before in anything(),
            lines in proptest::collection::vec("[a-c é日\t ]{0,6}", 0..300),
            settle in any::<bool>(),
            after in anything(),
        ) {
            let flood = lines.join("\n");
            let (mut at_once, mut by_line) = (Terminal::new(), Terminal::new());
            for terminal in [&mut at_once, &mut by_line] {
                terminal.feed(&before);
                if settle {
                    terminal.settle();
                }
            }
            at_once.feed(&flood);
            flood.split_inclusive('\n').for_each(|line| by_line.feed(line));
            prop_assert_eq!(read(&at_once), read(&by_line));
            at_once.feed(&after);
            by_line.feed(&after);
            prop_assert_eq!(read(&at_once), read(&by_line));
        }

        #[test]
        fn what_is_said_to_be_unchanged_is(first in anything(), second in anything()) {
            let mut terminal = Terminal::new();
            terminal.feed(&first);
            terminal.settle();
            terminal.take_unchanged();
            let before = terminal.settled().to_owned();
            terminal.feed(&second);
            terminal.settle();
            let unchanged = terminal.take_unchanged().min(before.len());
            prop_assert_eq!(&terminal.settled()[..unchanged], &before[..unchanged]);
        }

        #[test]
        fn forgetting_leaves_the_rest(first in anything(), second in anything()) {
            let (mut terminal, mut whole) = (Terminal::new(), Terminal::new());
            terminal.feed(&first);
            whole.feed(&first);
            terminal.settle();
            let bytes = terminal.settled().len();
            terminal.take_unchanged();
            terminal.forget(bytes);
            prop_assert_eq!(terminal.live(), read(&whole)[bytes..].to_owned());
            terminal.feed(&second);
            terminal.settle();
            prop_assert!(terminal.settled().len() <= read(&terminal).len());
        }
    }
}
