//! Reads a window's result page by page and cuts it into batches.

use super::fingerprints::{Fingerprint, Fingerprints};
use super::late::LateRange;
use super::window::{LowerBound, Plan};
use crate::bigquery::json::Text;
use crate::bigquery::page::{Cell, Envelope, JobReference, Page, Rows};
use crate::bigquery::schema::{Field, Type};
use crate::bigquery::sql::OCCURRENCE;
use crate::bigquery::value::Value;
use crate::error::{Failure, Kind};
use crate::mapping::batch::{Batch, BatchBuilder};
use crate::mapping::projection::Projection;
use crate::mapping::row::{RowKey, parse_row, recognise};
use crate::time::Micros;

/// The most bytes of text per Harper transaction.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Rows that may be passed over (counted, or known already) before a batch ends although it is not full.
const PASSED_ROWS_MAX: u64 = 5_000;

/// A window's result on its way to Harper.
#[derive(Debug)]
pub struct Reading {
    /// What was asked for.
    pub plan: Plan,
    /// The query's job; absent when the endpoint made none.
    pub job: Option<JobReference>,
    /// Rows of the result.
    pub total_rows: u64,
    /// Rows that were read. They are in Harper once the current batch is written.
    pub offset: u64,
    /// Rows before this offset are in Harper already, and are only counted.
    counted_until: u64,
    /// Rows before this offset are in Harper.
    written_until: u64,
    /// Rows from this offset on are not wanted.
    end: u64,
    page: Option<Page>,
    page_offset: u64,
    /// Of the last page.
    page_bytes: usize,
    occurrences: Occurrences,
    /// Whether BigQuery numbered the identical rows.
    pub numbered: bool,
    /// The latest known cursor of the table, up to the plan's watermark.
    newest: Option<Micros>,
    lower_bound: LowerBound,
    /// Rows with later cursors will probably be read again by the next window; none if all rows will.
    remember_after: Option<Micros>,
    bytes_billed: Option<u64>,
    news: bool,
    prepared: Option<Step>,
}

/// How many identical rows a window had so far.
#[derive(Debug, Default)]
struct Occurrences(Fingerprints);

impl Occurrences {
    /// Returns how many equal rows came before.
    fn count(&mut self, key: &RowKey) -> u32 {
        let mut came_before = 0;
        self.0.set(
            Fingerprint::of_content(key),
            usize::MAX,
            |_| true,
            |before| {
                came_before = before.map_or(0, |number| number.saturating_add(1));
                came_before
            },
        );
        came_before
    }
}

/// The reading's next step, and whether it is the first on its page.
#[derive(Debug)]
pub struct Step {
    /// Whether a new page was begun.
    pub page_starts: bool,
    /// The outcome. An error means that the page is malformed, that it ends before its first row, or that it has more
    /// rows than the result.
    pub progress: Result<Progress, Failure>,
}

/// The outcome of a step.
#[derive(Debug)]
pub enum Progress {
    /// Rows, or rejections, to write. The reading's offset is after them.
    Batch(Batch),
    /// The page is used up. The next page starts at the reading's offset.
    NeedsPage,
}

impl Reading {
    /// Starts to read a result. `newest` is the latest cursor of the table that was known before.
    pub fn new(
        plan: Plan,
        numbered: bool,
        job: Option<JobReference>,
        total_rows: u64,
        newest: Option<Micros>,
        lower_bound: LowerBound,
    ) -> Reading {
        let newest = newest.map(|newest| newest.min(plan.watermark));
        Reading {
            plan,
            job,
            total_rows,
            offset: 0,
            counted_until: 0,
            written_until: 0,
            end: total_rows,
            newest,
            remember_after: lower_bound.of(plan.reached(newest)),
            lower_bound,
            page: None,
            page_offset: 0,
            page_bytes: 0,
            occurrences: Occurrences::default(),
            numbered,
            bytes_billed: None,
            news: false,
            prepared: None,
        }
    }

    /// Begins at an offset: the rows before it are in Harper already. They are read nevertheless if identical rows have
    /// to be counted here, because BigQuery did not number them.
    pub fn begin_at(&mut self, offset: u64, counts_identical: bool) {
        (self.counted_until, self.written_until) = (offset, offset);
        if !counts_identical || self.numbered {
            self.offset = offset;
        }
    }

    /// Reads some rows of the result only.
    pub fn read_only(&mut self, from: u64, to: u64, counts_identical: bool) {
        self.begin_at(from, counts_identical);
        self.end = to.min(self.total_rows);
    }

    /// Remembers nothing for the next window.
    pub fn remember_nothing(&mut self) {
        self.remember_after = Some(Micros::MAX);
    }

    /// Returns the offset after the last wanted row.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Notes that the next commit contains everything that was read. Returns the offset at which its rows begin.
    pub fn commit(&mut self) -> u64 {
        std::mem::replace(&mut self.written_until, self.offset).min(self.offset)
    }

    /// Returns the latest cursor of the table that is known, up to the plan's watermark.
    pub fn newest(&self) -> Option<Micros> {
        self.newest
    }

    /// Returns where the watermark is once everything that was read is in Harper and the window is complete.
    pub fn reached(&self) -> Option<Micros> {
        self.plan.reached(self.newest)
    }

    fn see(&mut self, cursor: Micros) {
        if cursor <= self.plan.watermark && Some(cursor) > self.newest {
            self.newest = Some(cursor);
            self.remember_after = self.lower_bound.of(self.reached());
        }
    }

    /// Tells whether every wanted row was read.
    pub fn is_complete(&self) -> bool {
        self.offset >= self.end
    }

    /// Takes the page that starts at the reading's offset.
    pub fn take_page(&mut self, page: Page) {
        self.page_offset = self.offset;
        self.page_bytes = page.bytes();
        self.page = Some(page);
    }

    /// Returns the bytes of the page that is being read.
    pub fn page_bytes(&self) -> usize {
        if self.page.is_some() { self.page_bytes } else { 0 }
    }

    /// Returns about how many bytes a row had on the last page; none before the first page.
    pub fn row_bytes(&self) -> Option<u64> {
        (self.page_bytes as u64).checked_div(self.page_rows_read())
    }

    /// Returns how many rows of the current page were read.
    pub fn page_rows_read(&self) -> u64 {
        self.offset - self.page_offset
    }

    /// Returns the bytes that the query billed. It does so once, after the first page.
    pub fn take_bytes_billed(&mut self) -> u64 {
        match self.bytes_billed {
            Some(bytes) => {
                self.bytes_billed = Some(0);
                bytes
            }
            None => 0,
        }
    }

    /// Tells whether the query's bill is known, and was taken.
    pub fn is_billed(&self) -> bool {
        self.bytes_billed.is_some()
    }

    /// Tells whether there was a row that was not known before.
    pub fn has_news(&self) -> bool {
        self.news
    }

    /// Notes that the query's bill was counted before.
    pub fn forget_bytes_billed(&mut self) {
        self.bytes_billed = Some(0);
    }

    /// Reads up to `rows_max` rows of the page into a batch, unless the batch was prepared. `late` knows rows that are
    /// in Harper already, and remembers rows that the next window need not write again.
    ///
    /// If a page is cut, the rows before the cut are used, and then the page counts as used up.
    pub fn next_step(&mut self, projection: &Projection, late: &mut LateRange, rows_max: usize) -> Step {
        if let Some(prepared) = self.prepared.take() {
            return prepared;
        }
        let page_starts = self.page_rows_read() == 0;
        let progress = self.next_batch(projection, late, rows_max);
        Step { page_starts, progress }
    }

    /// Prepares the next step while the batch before it is being written.
    pub fn prepare(&mut self, projection: &Projection, late: &mut LateRange, rows_max: usize) {
        let step = self.next_step(projection, late, rows_max);
        self.prepared = Some(step);
    }

    fn next_batch(
        &mut self,
        projection: &Projection,
        late: &mut LateRange,
        rows_max: usize,
    ) -> Result<Progress, Failure> {
        let Some(mut page) = self.page.take() else { return Ok(Progress::NeedsPage) };
        let mut builder = BatchBuilder::new(projection);
        let offset_before = self.offset;
        let mut rows = page.rows();
        let filled = self.fill(projection, late, rows_max, &mut rows, &mut builder);
        let progress = rows.progress();
        page.advance(progress);
        if self.offset > self.total_rows {
            return Err(Failure::new(Kind::ResultLost, "BigQuery sent more rows than the result has"));
        }
        match filled {
            Ok(PageEnd::NotReached) => self.page = Some(page),
            Ok(PageEnd::Reached) => {
                if self.page_rows_read() == 0 && !self.is_complete() {
                    let message = "BigQuery sent a page without rows before the result's end";
                    return Err(Failure::new(Kind::ResponseMalformed, message));
                }
                self.bytes_billed = self.bytes_billed.or(page.envelope().bytes_billed);
            }
            Err(failure) if self.offset == offset_before && !self.is_complete() => return Err(failure),
            Err(_) => {}
        }
        if self.page.is_none() && builder.is_empty() && !self.is_complete() {
            return Ok(Progress::NeedsPage);
        }
        Ok(Progress::Batch(builder.finish()))
    }

    /// Adds rows until the batch is full or the page ends.
    fn fill<'p>(
        &mut self,
        projection: &'p Projection,
        late: &mut LateRange,
        rows_max: usize,
        rows: &mut Rows<'p>,
        builder: &mut BatchBuilder,
    ) -> Result<PageEnd, Failure> {
        let mut scratch = Scratch::default();
        let mut cells = Vec::with_capacity(projection.fields.len() + 1);
        let offset_max = self.offset + PASSED_ROWS_MAX;
        // After the last row of the result the page must end. Reading on shows whether it does.
        let offset_max = if self.end < self.total_rows { offset_max.min(self.end) } else { offset_max };
        while builder.rows() < rows_max && builder.text_bytes() < BATCH_BYTES_MAX && self.offset < offset_max
        {
            let Some(text) = rows.next(&mut cells)? else { return Ok(PageEnd::Reached) };
            self.offset += 1;
            self.take_row(projection, late, text, &mut cells, &mut scratch, builder);
        }
        if self.offset >= self.total_rows {
            if rows.next(&mut cells)?.is_none() {
                return Ok(PageEnd::Reached);
            }
            // A row that the result should not have.
            self.offset += 1;
        }
        Ok(PageEnd::NotReached)
    }

    /// Adds one row to the batch, unless it is in Harper already.
    fn take_row<'p>(
        &mut self,
        projection: &'p Projection,
        late: &mut LateRange,
        text: &str,
        cells: &mut Vec<Cell<'p>>,
        scratch: &mut Scratch<'p>,
        builder: &mut BatchBuilder,
    ) {
        let counted_only = self.offset <= self.counted_until;
        let number = if self.numbered { cells.pop() } else { None };
        let key = parse_row(projection, cells, &mut scratch.values)
            .and_then(|()| recognise(projection, &scratch.values, &mut scratch.canonical));
        let occurrence = match (&key, number) {
            (Ok(_), Some(number)) => read_occurrence(number),
            (Ok(key), None) if projection.key.is_empty() => self.occurrences.count(key),
            _ => 0,
        };
        let cursor = key.as_ref().map_or(Micros::MAX, |key| key.cursor);
        if key.is_ok() {
            self.see(cursor);
        }
        let read_again = self.remember_after.is_none_or(|after| cursor > after);
        if late.concerns(read_again) {
            let row = Fingerprint::of_text(text, occurrence);
            if late.recognise(row, cursor, read_again, self.remember_after) {
                return;
            }
        }
        self.news = true;
        match key {
            _ if counted_only => {}
            Ok(key) => builder.push(projection, &scratch.values, &key, occurrence),
            Err(unreadable) => builder.reject_unread(projection, cells, &unreadable),
        }
    }
}

/// Buffers that are used again for each row.
#[derive(Default)]
struct Scratch<'p> {
    values: Vec<Value<'p>>,
    canonical: Vec<u8>,
}

/// Reads the column [`OCCURRENCE`].
fn read_occurrence(cell: Cell<'_>) -> u32 {
    let (Cell::Bare(raw) | Cell::Text(Text { raw, .. })) = cell else { return 0 };
    std::str::from_utf8(raw).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether a page has more rows.
enum PageEnd {
    Reached,
    NotReached,
}

/// Checks that a result has the requested columns, because rows are read by position.
///
/// # Errors
/// When it does not.
pub fn check_schema(envelope: &Envelope, projection: &Projection, numbered: bool) -> Result<(), Failure> {
    let Some(schema) = &envelope.schema else { return Ok(()) };
    let mut found = Field::from_wire(&schema.fields)?;
    let other_columns = || {
        Failure::new(Kind::ResultLost, "the query's result has other columns than the source table has now")
    };
    if numbered && found.pop().is_none_or(|last| last.name != OCCURRENCE) {
        return Err(other_columns());
    }
    if are_like(&found, &projection.fields) { Ok(()) } else { Err(other_columns()) }
}

/// Tells whether the found fields have the places, names and types of the requested fields.
fn are_like(found: &[Field], wanted: &[Field]) -> bool {
    let is_like = |(found, wanted): (&Field, &Field)| {
        let alike = found.name.eq_ignore_ascii_case(&wanted.name) && found.repeated == wanted.repeated;
        alike
            && match (&found.kind, &wanted.kind) {
                (Type::Record(found), Type::Record(wanted)) => are_like(found, wanted),
                (found, wanted) => !is_told_plainly(found) || !is_told_plainly(wanted) || found == wanted,
            }
    };
    found.len() == wanted.len() && found.iter().zip(wanted).all(is_like)
}

/// Whether endpoints name a type in results as they do in descriptions of tables.
fn is_told_plainly(kind: &Type) -> bool {
    kind.is_simple() && *kind != Type::BigNumeric
}
