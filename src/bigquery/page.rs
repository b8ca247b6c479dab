//! One page of a query's result: its envelope, and its rows one at a time.

use super::json::{Malformed, Scanner, Start, Text};
use super::schema::WireField;
use crate::error::{Failure, Kind};
use serde::Deserialize;

/// Names a query's job, so that its result can be read again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobReference {
    /// The project that runs the job.
    pub project_id: String,
    /// The job's id within project and location.
    pub job_id: String,
    /// Where the job runs; needed outside the US and EU multi-regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// The columns of the result.
#[derive(Debug, Clone, Deserialize)]
pub struct ResultSchema {
    /// In the order of the cells.
    #[serde(default)]
    pub fields: Vec<WireField>,
}

/// What an answer of `jobs.query` or `jobs.getQueryResults` says besides the rows.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// Absent when the endpoint made no job.
    pub job: Option<JobReference>,
    /// The rows of the whole result; absent until the job is complete.
    pub total_rows: Option<u64>,
    /// Absent until the job is complete.
    pub schema: Option<ResultSchema>,
    /// False while the query still runs.
    pub complete: bool,
    /// Bytes that the query is billed for, where the endpoint tells.
    pub bytes_billed: Option<u64>,
}

/// A page of a result. Its rows are read from left to right, and the text is checked as far as it has been read. If the
/// page is cut, the rows before the cut are complete, and the reader notices the cut when it arrives there.
#[derive(Debug, Clone)]
pub struct Page {
    bytes: Vec<u8>,
    envelope: Envelope,
    position: Position,
}

/// How far a page was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// At the first row, or at the bracket that closes an empty list.
    FirstRow(usize),
    /// At the comma in front of the next row, or at the bracket that closes the list.
    BehindRow(usize),
    /// At the end.
    Closed,
}

/// A reader of rows that borrows the page, so that cells can be slices of it.
#[derive(Debug)]
pub struct Rows<'a> {
    scanner: Scanner<'a>,
    bytes: &'a [u8],
    position: Position,
    envelope: Envelope,
}

/// How far a [`Rows`] came.
#[derive(Debug)]
pub struct Progress {
    position: Position,
    envelope: Envelope,
}

impl Page {
    /// Reads an answer up to its rows.
    ///
    /// # Errors
    /// When the answer is not the JSON object that BigQuery documents, or is cut before the rows.
    pub fn open(bytes: Vec<u8>) -> Result<Page, Failure> {
        let mut envelope = Envelope::default();
        let mut scanner = Scanner::new(&bytes, 0);
        let opened = scanner.expect(b'{').and_then(|()| read_envelope(&mut scanner, &mut envelope));
        let position = opened.map_err(malformed)?;
        Ok(Page { bytes, envelope, position })
    }

    /// Returns what the answer says besides the rows. What follows the rows is known when they have been read.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Returns a reader that continues where the last one stopped.
    pub fn rows(&self) -> Rows<'_> {
        let at = match self.position {
            Position::FirstRow(at) | Position::BehindRow(at) => at,
            Position::Closed => self.bytes.len(),
        };
        Rows {
            scanner: Scanner::new(&self.bytes, at),
            bytes: &self.bytes,
            position: self.position,
            envelope: self.envelope.clone(),
        }
    }

    /// Returns its length.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Remembers how far a reader came.
    pub fn advance(&mut self, progress: Progress) {
        self.position = progress.position;
        self.envelope = progress.envelope;
    }
}

impl<'a> Rows<'a> {
    /// Reads the next row's cells and returns its text; `None` behind the last row.
    ///
    /// # Errors
    /// When the text is not a list of rows, is cut, or is not UTF-8.
    pub fn next(&mut self, cells: &mut Vec<Cell<'a>>) -> Result<Option<&'a str>, Failure> {
        cells.clear();
        self.read_row(cells).map_err(malformed)?.map_or(Ok(None), |text| match std::str::from_utf8(text) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Failure::new(Kind::ResponseMalformed, "BigQuery sent a page that is not UTF-8")),
        })
    }

    fn read_row(&mut self, cells: &mut Vec<Cell<'a>>) -> Result<Option<&'a [u8]>, Malformed> {
        let closed = match self.position {
            Position::Closed => return Ok(None),
            Position::FirstRow(_) => self.scanner.accept(b']'),
            Position::BehindRow(_) => !self.scanner.accept(b','),
        };
        if closed {
            if matches!(self.position, Position::BehindRow(_)) {
                self.scanner.expect(b']')?;
            }
            self.position = read_behind_value(&mut self.scanner, &mut self.envelope)?;
            return match self.position {
                Position::Closed => Ok(None),
                // A second list of rows.
                Position::FirstRow(at) | Position::BehindRow(at) => Err(Malformed { at }),
            };
        }
        self.scanner.peek();
        let start = self.scanner.position();
        read_record(&mut self.scanner, cells)?;
        let end = self.scanner.position();
        self.position = Position::BehindRow(end);
        Ok(self.bytes.get(start..end))
    }

    /// Returns how far the reader came, for [`Page::advance`].
    pub fn progress(self) -> Progress {
        Progress { position: self.position, envelope: self.envelope }
    }
}

/// Reads members of the top-level object up to the rows or the end.
fn read_envelope(scanner: &mut Scanner<'_>, envelope: &mut Envelope) -> Result<Position, Malformed> {
    if scanner.accept(b'}') {
        return Ok(Position::Closed);
    }
    loop {
        let key = scanner.string()?.raw;
        scanner.expect(b':')?;
        if key == b"rows" && scanner.start()? == Start::Array {
            envelope.complete = true;
            let rows_at = scanner.position() + 1;
            if envelope.total_rows.is_none() {
                // BigQuery sends the number of rows before the rows; other endpoints may send it later.
                scanner.skip()?;
                read_behind_value(scanner, envelope)?;
            }
            return Ok(Position::FirstRow(rows_at));
        }
        scanner.peek();
        let at = scanner.position();
        let value = scanner.skip()?;
        read_member(key, value, envelope).ok_or(Malformed { at })?;
        if !scanner.accept(b',') {
            scanner.expect(b'}')?;
            return Ok(Position::Closed);
        }
    }
}

/// Reads on behind the list of rows.
fn read_behind_value(scanner: &mut Scanner<'_>, envelope: &mut Envelope) -> Result<Position, Malformed> {
    if scanner.accept(b',') {
        return read_envelope(scanner, envelope);
    }
    scanner.expect(b'}')?;
    Ok(Position::Closed)
}

fn read_member(key: &[u8], value: &[u8], envelope: &mut Envelope) -> Option<()> {
    match key {
        b"jobComplete" => envelope.complete = value == b"true",
        b"totalRows" => envelope.total_rows = Some(unsigned(value)?),
        b"totalBytesBilled" => envelope.bytes_billed = Some(unsigned(value)?),
        b"totalBytesProcessed" if envelope.bytes_billed.is_none() => {
            envelope.bytes_billed = Some(unsigned(value)?);
        }
        b"jobReference" => envelope.job = read_job(value)?,
        b"schema" => envelope.schema = Some(serde_json::from_slice(value).ok()?),
        _ => {}
    }
    Some(())
}

/// Reads the reference to a job. A dry run makes no job, and its answer has only project and location.
fn read_job(value: &[u8]) -> Option<Option<JobReference>> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(value).ok()?;
    if !members.contains_key("jobId") {
        return Some(None);
    }
    serde_json::from_value(members.into()).ok().map(Some)
}

/// Reads a JSON string or number that is an unsigned integer and exact in JavaScript.
fn unsigned(value: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(value).ok()?.trim_matches('"').parse().ok()?;
    (number < 1 << 53).then_some(number)
}

fn malformed(error: Malformed) -> Failure {
    let message = format!("BigQuery sent a page that is cut or malformed at byte {}", error.at);
    Failure::new(Kind::ResponseMalformed, message)
}

/// One cell of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// A scalar, as text; `escaped` tells whether it holds backslashes.
    Text(Text<'a>),
    /// A scalar that the endpoint wrote without quotes.
    Bare(&'a [u8]),
    /// A record or an array, as JSON text.
    Nested(&'a [u8]),
}

/// Splits `{"f":[{"v":…},…]}` into its cells, which are appended.
pub fn read_record<'a>(scanner: &mut Scanner<'a>, cells: &mut Vec<Cell<'a>>) -> Result<(), Malformed> {
    scanner.expect(b'{')?;
    if scanner.string()?.raw != b"f" {
        return Err(scanner.malformed());
    }
    scanner.expect(b':')?;
    read_values(scanner, cells)?;
    scanner.expect(b'}')
}

/// Splits `[{"v":…},…]` into its values, which are appended.
pub fn read_values<'a>(scanner: &mut Scanner<'a>, cells: &mut Vec<Cell<'a>>) -> Result<(), Malformed> {
    scanner.expect(b'[')?;
    if scanner.accept(b']') {
        return Ok(());
    }
    loop {
        scanner.expect(b'{')?;
        if scanner.string()?.raw != b"v" {
            return Err(scanner.malformed());
        }
        scanner.expect(b':')?;
        cells.push(read_cell(scanner)?);
        scanner.expect(b'}')?;
        if !scanner.accept(b',') {
            return scanner.expect(b']');
        }
    }
}

fn read_cell<'a>(scanner: &mut Scanner<'a>) -> Result<Cell<'a>, Malformed> {
    match scanner.start()? {
        Start::Null => scanner.bare().map(|_| Cell::Null),
        Start::String => scanner.string().map(Cell::Text),
        Start::Bare => scanner.bare().map(Cell::Bare),
        Start::Object | Start::Array => scanner.skip().map(Cell::Nested),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> Result<(usize, Envelope), Failure> {
        let page = Page::open(bytes.to_vec())?;
        let mut rows = page.rows();
        let mut cells = Vec::new();
        let mut count = 0;
        while rows.next(&mut cells)?.is_some() {
            count += cells.len();
        }
        Ok((count, rows.progress().envelope))
    }

    const ANSWER: &str = r#"{"kind":"x","jobReference":{"projectId":"p","jobId":"j","location":"US"},
        "schema":{"fields":[{"name":"a","type":"INTEGER"}]},"totalRows":"2",
        "rows":[{"f":[{"v":"1"},{"v":null}]}, {"f":[{"v":[{"v":"2"}]},{"v":{"f":[]}}]}],
        "totalBytesProcessed":"77","jobComplete":true}"#;

    #[test]
    fn rows_and_envelope_are_read_in_one_pass() {
        let (cells, envelope) = read_all(ANSWER.as_bytes()).unwrap();
        assert_eq!(cells, 4);
        assert!(envelope.complete);
        assert_eq!(envelope.total_rows, Some(2));
        assert_eq!(envelope.bytes_billed, Some(77));
        assert_eq!(envelope.job.unwrap().job_id, "j");
    }

    #[test]
    fn the_number_of_rows_is_known_at_once_wherever_it_stands() {
        let page = Page::open(br#"{"rows":[{"f":[]}],"totalRows":"1"}"#.to_vec()).unwrap();
        assert_eq!(page.envelope().total_rows, Some(1));
        assert!(page.rows().next(&mut Vec::new()).unwrap().is_some());
    }

    #[test]
    fn the_answer_of_a_dry_run_names_no_job() {
        let answer = br#"{"jobReference":{"projectId":"p","location":"US"},"jobComplete":true,
            "totalBytesProcessed":"9329"}"#;
        let (_, envelope) = read_all(answer).unwrap();
        assert_eq!((envelope.job, envelope.bytes_billed), (None, Some(9_329)));
        let unfit = br#"{"jobReference":{"projectId":"p","jobId":7}}"#;
        assert_eq!(read_all(unfit).unwrap_err().kind, Kind::ResponseMalformed);
    }

    #[test]
    fn reading_goes_on_where_it_stopped() {
        let mut page = Page::open(ANSWER.as_bytes().to_vec()).unwrap();
        for expected in [true, true, false, false] {
            let mut rows = page.rows();
            let found = rows.next(&mut Vec::new()).unwrap().is_some();
            let progress = rows.progress();
            assert_eq!(found, expected);
            page.advance(progress);
        }
    }

    #[test]
    fn a_page_that_is_cut_anywhere_is_never_read_to_its_end() {
        for length in 0..ANSWER.len() {
            let cut = ANSWER.as_bytes().get(..length).unwrap();
            assert_eq!(read_all(cut).unwrap_err().kind, Kind::ResponseMalformed, "cut at {length}");
        }
    }

    #[test]
    fn an_answer_without_rows_is_empty() {
        let (cells, envelope) = read_all(br#"{"jobComplete":false}"#).unwrap();
        assert_eq!((cells, envelope.complete), (0, false));
        assert_eq!(read_all(br#"{"rows":[],"jobComplete":true}"#).unwrap().0, 0);
    }

    #[test]
    fn a_page_that_is_not_utf8_is_malformed() {
        let failure = read_all(b"{\"rows\":[{\"f\":[{\"v\":\"\xff\"}]}]}").unwrap_err();
        assert_eq!(failure.kind, Kind::ResponseMalformed);
    }
}
