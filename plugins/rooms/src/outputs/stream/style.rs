//! Colors and attributes of terminal text.
//!
//! For: reading SGR sequences and writing them back in one normal form.
//! Promises: reading what [`Style::open`] wrote gives the same style.

use std::fmt::Write as _;

/// Ends every style. Source: ECMA-48, SGR 0.
pub(super) const CLOSE: &str = "\u{1b}[0m";

/// SGR codes that switch an attribute on; the position is its bit in [`Style::attributes`].
const ATTRIBUTES: [u16; 8] = [1, 2, 3, 4, 5, 7, 8, 9];

/// How a character looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    foreground: Color,
    background: Color,
    /// One bit for each of [`ATTRIBUTES`].
    attributes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Color {
    Plain,
    /// 0-7, and 8-15 for the bright ones.
    Named(u8),
    Indexed(u8),
    Rgb(u8, u8, u8),
}

impl Style {
    /// No color, no attribute.
    pub(super) const PLAIN: Self = Self { foreground: Color::Plain, background: Color::Plain, attributes: 0 };

    /// Applies the parameters of one SGR sequence. Unknown ones are passed over.
    pub(super) fn apply(&mut self, params: &vte::Params) {
        let mut params = params.iter();
        while let Some(param) = params.next() {
            match *param {
                [4, 0] => self.set(4, false),
                [code @ (38 | 48), ref color @ ..] => {
                    let color = if color.is_empty() {
                        Color::read(&mut std::iter::from_fn(|| params.next()?.first().copied()))
                    } else {
                        Color::read_colons(color)
                    };
                    if let Some(color) = color {
                        *if code == 38 { &mut self.foreground } else { &mut self.background } = color;
                    }
                }
                [code, ..] => self.apply_code(code),
                [] => {}
            }
        }
    }

    fn apply_code(&mut self, code: u16) {
        /// Codes of the named colors start here: plain and bright, foreground and background.
        const BASES: [(u16, u8, bool); 4] = [(30, 0, true), (90, 8, true), (40, 0, false), (100, 8, false)];
        match code {
            0 => *self = Self::PLAIN,
            21 => self.set(4, true),
            22 => {
                self.set(1, false);
                self.set(2, false);
            }
            23..=25 | 27..=29 => self.set(code - 20, false),
            39 => self.foreground = Color::Plain,
            49 => self.background = Color::Plain,
            _ => match BASES.iter().find(|(base, ..)| (*base..base + 8).contains(&code)) {
                Some((base, offset, foreground)) => {
                    let color = Color::Named((code - base) as u8 + offset);
                    *if *foreground { &mut self.foreground } else { &mut self.background } = color;
                }
                None => self.set(code, true),
            },
        }
    }

    fn set(&mut self, code: u16, on: bool) {
        if let Some(bit) = ATTRIBUTES.iter().position(|known| *known == code) {
            self.attributes = self.attributes & !(1 << bit) | u8::from(on) << bit;
        }
    }

    /// Writes the sequence that leads from plain text to this style; nothing for plain.
    pub(super) fn open(self, out: &mut String) {
        let attributes = ATTRIBUTES.iter().enumerate().filter(|(bit, _)| self.attributes >> bit & 1 == 1);
        let mut codes: Vec<String> = attributes.map(|(_, code)| code.to_string()).collect();
        codes.extend(self.foreground.codes(30));
        codes.extend(self.background.codes(40));
        if !codes.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\u{1b}[{}m", codes.join(";"));
        }
    }
}

impl Color {
    /// Reads what follows 38 or 48 in parameters of their own: `5;n` or `2;r;g;b`.
    fn read(codes: &mut dyn Iterator<Item = u16>) -> Option<Self> {
        let byte = |codes: &mut dyn Iterator<Item = u16>| u8::try_from(codes.next()?).ok();
        match codes.next()? {
            5 => byte(codes).map(Self::Indexed),
            2 => Some(Self::Rgb(byte(codes)?, byte(codes)?, byte(codes)?)),
            _ => None,
        }
    }

    /// Reads the colon form, `5:n`, `2:r:g:b` or `2:<color space>:r:g:b`.
    fn read_colons(codes: &[u16]) -> Option<Self> {
        match *codes {
            [2, _, red, green, blue, ..] => Self::read(&mut [2, red, green, blue].into_iter()),
            _ => Self::read(&mut codes.iter().copied()),
        }
    }

    /// The codes that set this color, `base` being 30 or 40.
    fn codes(self, base: u16) -> Option<String> {
        match self {
            Self::Plain => None,
            Self::Named(index @ 0..8) => Some((base + u16::from(index)).to_string()),
            Self::Named(index) => Some((base + 52 + u16::from(index)).to_string()),
            Self::Indexed(index) => Some(format!("{};5;{index}", base + 8)),
            Self::Rgb(red, green, blue) => Some(format!("{};2;{red};{green};{blue}", base + 8)),
        }
    }
}
