//! What a cron expression may consist of, as a `const fn`: the one place where expressions are checked, at compile time
//! and at run time alike, so it uses only what a `const fn` may call.

/// A field of an expression, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
}

impl Field {
    const fn of(place: usize) -> Self {
        match place {
            0 => Self::Second,
            1 => Self::Minute,
            2 => Self::Hour,
            3 => Self::Day,
            4 => Self::Month,
            _ => Self::Weekday,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day of the month",
            Self::Month => "month",
            Self::Weekday => "day of the week",
        }
    }

    pub(super) const fn range(self) -> &'static str {
        match self {
            Self::Second | Self::Minute => "0-59",
            Self::Hour => "0-23",
            Self::Day => "1-31",
            Self::Month => "1-12 or JAN-DEC",
            Self::Weekday => "0-7 or SUN-SAT",
        }
    }

    const fn min(self) -> u8 {
        match self {
            Self::Day | Self::Month => 1,
            _ => 0,
        }
    }

    const fn max(self) -> u8 {
        match self {
            Self::Second | Self::Minute => 59,
            Self::Hour => 23,
            Self::Day => 31,
            Self::Month => 12,
            Self::Weekday => 7,
        }
    }
}

/// What is wrong with an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    FieldCount,
    Nickname,
    EmptyPart,
    StarInList,
    NotAValue,
    OutOfRange,
    Reversed,
    StepWithoutRange,
    StepOutOfRange,
    NthOutOfRange,
    Never,
    Unsupported,
}

impl Kind {
    /// The sentence, in which `{field}`, `{value}` and `{range}` are filled in.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::FieldCount => "a cron expression has five fields, or six with seconds: `{value}`",
            Self::Nickname => {
                "`{value}` is none of @yearly, @annually, @monthly, @weekly, @daily and @hourly"
            }
            Self::EmptyPart => "the {field} `{value}` has an empty part between its commas",
            Self::StarInList => {
                "the {field} has a `*` beside others, which would mean nothing: `{value}`"
            }
            Self::NotAValue => "the {field} `{value}` is not a value, and those are {range}",
            Self::OutOfRange => "the {field} `{value}` is not in {range}",
            Self::Reversed => "the {field} `{value}` ends before it begins: write it as a list",
            Self::StepWithoutRange => {
                "the {field} `{value}` has a step, which belongs to `*` or to a range such as `0-30/5`"
            }
            Self::StepOutOfRange => {
                "the {field} `{value}` has a step that is zero, or beyond {range}"
            }
            Self::NthOutOfRange => "the {field} `{value}` is not one of #1 to #5",
            Self::Never => "this never fires, since none of its months has the {field} `{value}`",
            Self::Unsupported => "`{value}` can't be computed",
        }
    }
}

/// What is wrong, and with which part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) kind: Kind,
    pub(super) field: Field,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What an expression matches, as a bit for each value. Days of the week that depend on the month are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields {
    values: [u64; 6],
    has_last_day: bool,
    has_any_weekday: bool,
}

impl Fields {
    /// Whether it matches in each hour, so that it goes by elapsed time.
    pub(super) const fn is_every_hour(&self) -> bool {
        self.values[2] == (1 << 24) - 1
    }

    #[cfg(test)]
    pub(super) fn values(&self) -> [u64; 6] {
        self.values
    }
}

/// `?`, which a `const fn` can't use.
macro_rules! check {
    ($outcome:expr) => {
        match $outcome {
            Ok(value) => value,
            Err(mistake) => return Err(mistake),
        }
    };
}

pub(super) const fn check(text: &str) -> Result<Fields, Mistake> {
    let bytes = text.as_bytes();
    let (start, end) = trimmed(bytes);
    if start < end && bytes[start] == b'@' {
        return match nickname(bytes, start, end) {
            Some(expression) => check(expression),
            None => Err(of(Kind::Nickname, Field::Second, start, end)),
        };
    }
    let count = count_fields(bytes, start, end);
    if count != 5 && count != 6 {
        return Err(of(Kind::FieldCount, Field::Second, start, end));
    }
    let mut fields = Fields {
        // Second 0, if there is no field for it.
        values: [(count == 5) as u64, 0, 0, 0, 0, 0],
        has_last_day: false,
        has_any_weekday: false,
    };
    let (mut day, mut at, mut place) = ((start, end), start, 6 - count);
    while place < 6 {
        while is_space(bytes[at]) {
            at += 1;
        }
        let begin = at;
        while at < end && !is_space(bytes[at]) {
            at += 1;
        }
        let field = Field::of(place);
        if matches!(field, Field::Day) {
            day = (begin, at);
        }
        check!(check_field(bytes, field, begin, at, &mut fields));
        place += 1;
    }
    if fields.has_any_weekday && !fields.has_last_day && !has_a_day(&fields) {
        return Err(of(Kind::Never, Field::Day, day.0, day.1));
    }
    Ok(fields)
}

/// Whether one of the months has one of the days.
const fn has_a_day(fields: &Fields) -> bool {
    const LENGTHS: [u8; 13] = [0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let first = fields.values[3].trailing_zeros();
    let mut month = 1;
    while month <= 12 {
        if fields.values[4] >> month & 1 == 1 && first <= LENGTHS[month] as u32 {
            return true;
        }
        month += 1;
    }
    false
}

const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

const fn trimmed(bytes: &[u8]) -> (usize, usize) {
    let (mut start, mut end) = (0, bytes.len());
    while start < end && is_space(bytes[start]) {
        start += 1;
    }
    while end > start && is_space(bytes[end - 1]) {
        end -= 1;
    }
    (start, end)
}

const fn count_fields(bytes: &[u8], start: usize, end: usize) -> usize {
    let (mut count, mut at) = (0, start);
    while at < end {
        if !is_space(bytes[at]) && (at == start || is_space(bytes[at - 1])) {
            count += 1;
        }
        at += 1;
    }
    count
}

const fn is_word(bytes: &[u8], start: usize, end: usize, word: &str) -> bool {
    let word = word.as_bytes();
    if end - start != word.len() {
        return false;
    }
    let mut at = 0;
    while at < word.len() {
        if !bytes[start + at].eq_ignore_ascii_case(&word[at]) {
            return false;
        }
        at += 1;
    }
    true
}

/// The expression that a name stands for.
const fn nickname(bytes: &[u8], start: usize, end: usize) -> Option<&'static str> {
    const NICKNAMES: [(&str, &str); 6] = [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ];
    let mut at = 0;
    while at < NICKNAMES.len() {
        if is_word(bytes, start, end, NICKNAMES[at].0) {
            return Some(NICKNAMES[at].1);
        }
        at += 1;
    }
    None
}

const fn check_field(
    bytes: &[u8],
    field: Field,
    start: usize,
    end: usize,
    fields: &mut Fields,
) -> Result<(), Mistake> {
    if end - start == 1 && bytes[start] == b'*' {
        if matches!(field, Field::Weekday) {
            fields.has_any_weekday = true;
        }
        set(fields, field, (field.min(), field.max(), 1));
        return Ok(());
    }
    let mut part = start;
    loop {
        let mut part_end = part;
        while part_end < end && bytes[part_end] != b',' {
            part_end += 1;
        }
        if part == part_end {
            return Err(of(Kind::EmptyPart, field, start, end));
        }
        check!(check_part(bytes, field, part, part_end, fields));
        if part_end == end {
            return Ok(());
        }
        part = part_end + 1;
    }
}

/// Sets each `step`th bit from the first to the last value.
const fn set(fields: &mut Fields, field: Field, (first, last, step): (u8, u8, u8)) {
    let mut value = first;
    while value <= last {
        // 7 is Sunday too.
        let bit = if matches!(field, Field::Weekday) {
            value % 7
        } else {
            value
        };
        fields.values[field as usize] |= 1 << bit;
        value += step;
    }
}

const fn find(bytes: &[u8], start: usize, end: usize, wanted: u8) -> Option<usize> {
    let mut at = start;
    while at < end {
        if bytes[at] == wanted {
            return Some(at);
        }
        at += 1;
    }
    None
}

const fn check_part(
    bytes: &[u8],
    field: Field,
    start: usize,
    end: usize,
    fields: &mut Fields,
) -> Result<(), Mistake> {
    let (range_end, step) = match find(bytes, start, end, b'/') {
        None => (end, 1),
        Some(slash) => (slash, check!(step(bytes, field, (start, slash, end)))),
    };
    let is_star = range_end - start == 1 && bytes[start] == b'*';
    if is_star {
        if range_end == end {
            return Err(of(Kind::StarInList, field, start, end));
        }
        set(fields, field, (field.min(), field.max(), step));
        return Ok(());
    }
    if let Some(dash) = find(bytes, start, range_end, b'-') {
        let first = check!(value(bytes, field, start, dash));
        let mut last = check!(value(bytes, field, dash + 1, range_end));
        if matches!(field, Field::Weekday) && is_word(bytes, dash + 1, range_end, "SUN") {
            last = 7;
        }
        if first > last {
            return Err(of(Kind::Reversed, field, start, range_end));
        }
        set(fields, field, (first, last, step));
        return Ok(());
    }
    if range_end < end {
        return Err(of(Kind::StepWithoutRange, field, start, end));
    }
    if matches!(field, Field::Day) && is_word(bytes, start, end, "L") {
        fields.has_last_day = true;
        return Ok(());
    }
    if matches!(field, Field::Weekday) {
        // The last one of the month, or its nth: which day that is depends on the month.
        if end - start > 1 && bytes[end - 1].eq_ignore_ascii_case(&b'L') {
            check!(value(bytes, field, start, end - 1));
            return Ok(());
        }
        if let Some(hash) = find(bytes, start, end, b'#') {
            check!(value(bytes, field, start, hash));
            if end - hash != 2 || !matches!(bytes[hash + 1], b'1'..=b'5') {
                return Err(of(Kind::NthOutOfRange, field, start, end));
            }
            return Ok(());
        }
    }
    let value = check!(value(bytes, field, start, end));
    set(fields, field, (value, value, 1));
    Ok(())
}

const fn of(kind: Kind, field: Field, start: usize, end: usize) -> Mistake {
    Mistake {
        kind,
        field,
        start,
        end,
    }
}

const fn step(
    bytes: &[u8],
    field: Field,
    (start, slash, end): (usize, usize, usize),
) -> Result<u8, Mistake> {
    match number(bytes, slash + 1, end) {
        Some(step) if step > 0 && step <= field.max() as u32 => Ok(step as u8),
        _ => Err(of(Kind::StepOutOfRange, field, start, end)),
    }
}

/// A number of digits alone; what is too large for any field is all the same.
const fn number(bytes: &[u8], start: usize, end: usize) -> Option<u32> {
    if start >= end {
        return None;
    }
    let (mut at, mut number) = (start, 0);
    while at < end {
        let digit = bytes[at];
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + (digit - b'0') as u32;
        if number > 999 {
            number = 999;
        }
        at += 1;
    }
    Some(number)
}

const fn value(bytes: &[u8], field: Field, start: usize, end: usize) -> Result<u8, Mistake> {
    const MONTHS: [&str; 12] = [
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ];
    const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let names: (&[&str], u8) = match field {
        Field::Month => (&MONTHS, 1),
        Field::Weekday => (&DAYS, 0),
        _ => (&[], 0),
    };
    let mut at = 0;
    while at < names.0.len() {
        if is_word(bytes, start, end, names.0[at]) {
            return Ok(at as u8 + names.1);
        }
        at += 1;
    }
    match number(bytes, start, end) {
        Some(number) if number >= field.min() as u32 && number <= field.max() as u32 => {
            Ok(number as u8)
        }
        Some(_) => Err(of(Kind::OutOfRange, field, start, end)),
        None => Err(of(Kind::NotAValue, field, start, end)),
    }
}
