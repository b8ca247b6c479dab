//! A scanner over JSON text that hands out slices instead of building values.

/// Where the text stops being the JSON that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Offset of the first byte that does not fit.
    pub at: usize,
}

/// The kind of JSON value that starts at the scanner's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// `null`
    Null,
    /// `true`, `false` or a number.
    Bare,
}

/// A string's content between its quotes, still escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The bytes between the quotes.
    pub raw: &'a [u8],
    /// Whether `raw` holds a backslash.
    pub escaped: bool,
}

/// Reads JSON from left to right.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Values nested deeper than this are refused, so that no input can exhaust the stack.
const NESTING_MAX: usize = 512;

impl<'a> Scanner<'a> {
    /// Starts at `at`, which may lie behind the end.
    pub fn new(bytes: &'a [u8], at: usize) -> Scanner<'a> {
        Scanner { bytes, at }
    }

    /// Returns the current offset.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns the bytes from `start` to the current offset.
    pub fn slice_from(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Returns the failure of a text that does not fit at the current offset.
    pub fn malformed(&self) -> Malformed {
        Malformed { at: self.at }
    }

    /// Returns the next byte that is not white space, without passing it.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at).copied() {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Passes `expected`, with any white space in front of it.
    pub fn expect(&mut self, expected: u8) -> Result<(), Malformed> {
        if self.peek() != Some(expected) {
            return Err(self.malformed());
        }
        self.at += 1;
        Ok(())
    }

    /// Passes `wanted` if it comes next; tells whether it did.
    pub fn accept(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Tells which kind of value comes next.
    pub fn start(&mut self) -> Result<Start, Malformed> {
        match self.peek() {
            Some(b'{') => Ok(Start::Object),
            Some(b'[') => Ok(Start::Array),
            Some(b'"') => Ok(Start::String),
            Some(b'n') => Ok(Start::Null),
            Some(b't' | b'f' | b'-' | b'0'..=b'9') => Ok(Start::Bare),
            _ => Err(self.malformed()),
        }
    }

    /// Passes a string and returns what is between its quotes.
    pub fn string(&mut self) -> Result<Text<'a>, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.pass_escape()?;
                }
                Some(0x00..=0x1f) | None => return Err(self.malformed()),
                Some(_) => self.at += 1,
            }
        }
        let raw = self.slice_from(start);
        self.at += 1;
        Ok(Text { raw, escaped })
    }

    fn pass_escape(&mut self) -> Result<(), Malformed> {
        let length = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6).ok_or(self.malformed())?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.malformed());
                }
                6
            }
            _ => return Err(self.malformed()),
        };
        self.at += length;
        Ok(())
    }

    /// Passes `null`, `true`, `false` or a number and returns its text.
    pub fn bare(&mut self) -> Result<&'a [u8], Malformed> {
        self.peek();
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') = self.bytes.get(self.at)
        {
            self.at += 1;
        }
        let word = self.slice_from(start);
        if matches!(word, b"null" | b"true" | b"false") || is_number(word) {
            return Ok(word);
        }
        self.at = start;
        Err(self.malformed())
    }

    /// Passes any value and returns its text.
    pub fn skip(&mut self) -> Result<&'a [u8], Malformed> {
        self.peek();
        let start = self.at;
        self.skip_nested(0)?;
        Ok(self.slice_from(start))
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth > NESTING_MAX {
            return Err(self.malformed());
        }
        match self.start()? {
            Start::String => self.string().map(drop),
            Start::Null | Start::Bare => self.bare().map(drop),
            Start::Array => {
                self.expect(b'[')?;
                if self.accept(b']') {
                    return Ok(());
                }
                loop {
                    self.skip_nested(depth + 1)?;
                    if !self.accept(b',') {
                        return self.expect(b']');
                    }
                }
            }
            Start::Object => {
                self.expect(b'{')?;
                if self.accept(b'}') {
                    return Ok(());
                }
                loop {
                    self.string()?;
                    self.expect(b':')?;
                    self.skip_nested(depth + 1)?;
                    if !self.accept(b',') {
                        return self.expect(b'}');
                    }
                }
            }
        }
    }
}

/// Tells whether the text is a number by JSON's grammar.
pub fn is_number(text: &[u8]) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let integer_length = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if integer_length == 0 || (integer_length > 1 && unsigned.first() == Some(&b'0')) {
        return false;
    }
    let mut rest = unsigned.get(integer_length..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return false;
        }
        rest = fraction.get(length..).unwrap_or_default();
    }
    match rest.split_first() {
        None => true,
        Some((b'e' | b'E', exponent)) => {
            let digits =
                exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        Some(_) => false,
    }
}

impl Text<'_> {
    /// Tells whether the text can be written as UTF-8, because it has no halves of surrogate pairs.
    pub fn is_unicode(&self) -> bool {
        if !self.escaped {
            return true;
        }
        let mut rest = self.raw;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte != b'\\' {
                continue;
            }
            let Some((&escape, after)) = after.split_first() else { return false };
            rest = after;
            if escape == b'u' {
                let Some((_, behind)) = character(after).filter(|(found, _)| found.is_some()) else {
                    return false;
                };
                rest = behind;
            }
        }
        true
    }

    /// Appends the text with its escapes resolved; lone surrogates become U+FFFD.
    pub fn unescape_into(&self, out: &mut Vec<u8>) {
        if !self.escaped {
            out.extend_from_slice(self.raw);
            return;
        }
        let mut rest = self.raw;
        while let Some((&byte, after)) = rest.split_first() {
            if byte != b'\\' {
                out.push(byte);
                rest = after;
                continue;
            }
            let (escape, after) = after.split_first().unwrap_or((&b'\\', &[]));
            rest = after;
            match escape {
                b'b' => out.push(0x08),
                b'f' => out.push(0x0c),
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'u' => rest = push_unicode(after, out),
                other => out.push(*other),
            }
        }
    }
}

/// Appends the character of `\uXXXX` (with its low surrogate, if one follows); returns what is behind it.
fn push_unicode<'a>(digits: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((found, rest)) = character(digits) else { return &[] };
    let character = found.unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    rest
}

/// Reads the character of `\uXXXX`, none for half of a pair, and what is behind it.
fn character(digits: &[u8]) -> Option<(Option<char>, &[u8])> {
    let (high, rest) = hex4(digits)?;
    let (code, rest) = match (high, rest.strip_prefix(b"\\u").and_then(hex4)) {
        (0xd800..=0xdbff, Some((low @ 0xdc00..=0xdfff, behind))) => {
            (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), behind)
        }
        _ => (high, rest),
    };
    Some((char::from_u32(code), rest))
}

fn hex4(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (four, rest) = digits.split_at_checked(4)?;
    let text = std::str::from_utf8(four).ok()?;
    Some((u32::from_str_radix(text, 16).ok()?, rest))
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x00..=0x1f => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend(HEX.get(usize::from(byte >> 4)));
                out.extend(HEX.get(usize::from(byte & 0xf)));
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        let mut scanner = Scanner::new(text.as_bytes(), 0);
        scanner.skip().is_ok() && scanner.peek().is_none()
    }

    #[test]
    fn the_grammar_is_that_of_json() {
        for text in ["0", "-0.5e+10", "[]", "{}", "[1, {\"a\": null}]", "\"\\u00e9\\n\"", " true ", "1E5"] {
            assert!(accepts(text), "{text}");
        }
        for text in [
            "", "01", "1.", ".5", "+1", "[1,]", "{\"a\"}", "{a:1}", "\"\\x\"", "\"", "nul", "[1 2]", "NaN",
            "1e",
        ] {
            assert!(!accepts(text), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_instead_of_exhausting_the_stack() {
        assert!(!accepts(&"[".repeat(100_000)));
        assert!(accepts(&format!("{}{}", "[".repeat(500), "]".repeat(500))));
    }

    #[test]
    fn surrogate_pairs_become_one_character() {
        let mut scanner = Scanner::new(br#""\ud83d\ude00 \ud83d!""#, 0);
        let mut out = Vec::new();
        scanner.string().unwrap().unescape_into(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "😀 \u{fffd}!");
    }

    proptest! {
        #[test]
        fn any_text_survives_writing_and_reading(text in ".*") {
            let mut json = Vec::new();
            write_string(&mut json, text.as_bytes());
            let mut out = Vec::new();
            Scanner::new(&json, 0).string().unwrap().unescape_into(&mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), text);
        }

        #[test]
        fn what_serde_writes_is_accepted(text in ".*", number in any::<f64>()) {
            let value = serde_json::json!({ text.clone(): [number, text, null, true] });
            prop_assert!(accepts(&value.to_string()));
            prop_assert!(accepts(&serde_json::to_string_pretty(&value).unwrap()));
        }

        #[test]
        fn a_cut_text_is_never_accepted(cut in 0_usize..34) {
            let text = r#"{"a": [1, "b\u00e9", {"c": null}]}"#;
            let whole = text.len();
            prop_assert!(!accepts(text.get(..cut.min(whole - 1)).unwrap()));
        }
    }
}
