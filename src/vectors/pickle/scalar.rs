//! Instances that stand for one value: dates, decimals, UUIDs, paths, numbers of NumPy.

use super::{Instance, Pickle, PickleValue, PythonClass};
use half::f16;
use serde_json::Value;

/// Maximum number of digits of an integer, as in Python's own conversion to text.
const MAX_DIGITS: usize = 4300;

/// The meaning of an instance.
#[derive(Debug)]
pub(super) enum Scalar {
    /// A number, perhaps NaN or infinity.
    Float(f64),
    Json(Value),
}

/// The meaning of an instance; `None` if its class has none as a value.
///
/// # Errors
///
/// The reason, if the arguments do not fit the class.
pub(super) fn scalar(pickle: &Pickle, instance: Instance<'_>) -> Result<Option<Scalar>, String> {
    let class = instance.class;
    let text = match class {
        PythonClass::Date | PythonClass::DateTime | PythonClass::Time => instant(pickle, instance),
        PythonClass::TimeDelta => micros(instance).map(duration),
        PythonClass::Decimal => match instance.args {
            [text] => match pickle.text(*text) {
                Some(text) if text.contains(['n', 'N', 'f']) => {
                    return Ok(Some(Scalar::Float(f64::NAN)));
                }
                text => text.filter(|text| is_decimal(text)).map(str::to_owned),
            },
            _ => None,
        },
        PythonClass::Uuid => uuid(pickle, instance),
        PythonClass::PosixPath => texts(pickle, instance).map(|parts| posix_path(&parts)),
        PythonClass::WindowsPath => texts(pickle, instance).map(|parts| windows_path(&parts)),
        PythonClass::NumpyScalar => return numpy(pickle, instance).map(Some),
        _ => return Ok(None),
    };
    let damaged = || format!("a {} with arguments that do not fit", class.name());
    text.map(|text| Some(Scalar::Json(text.into()))).ok_or_else(damaged)
}

/// The decimal digits of an integer of more than 64 bits.
///
/// # Errors
///
/// The reason, if there are too many.
pub(super) fn digits(pickle: &Pickle, value: PickleValue) -> Result<String, String> {
    let too_long = || format!("an int of more than {MAX_DIGITS} digits: make it text");
    match value {
        PickleValue::Digits(span) => {
            let digits = pickle.span(span);
            let digits = (digits.len() <= MAX_DIGITS).then(|| std::str::from_utf8(digits).ok());
            digits.flatten().map(str::to_owned).ok_or_else(too_long)
        }
        PickleValue::Long(span) => {
            // Each byte has log10(256) digits, 2.41.
            let bytes = pickle.span(span);
            (bytes.len() <= MAX_DIGITS * 5 / 12).then(|| of_bytes(bytes)).ok_or_else(too_long)
        }
        PickleValue::Int(number) => Ok(number.to_string()),
        _ => Err("must be an int".to_owned()),
    }
}

/// The decimal digits of a little-endian integer in two's complement.
fn of_bytes(bytes: &[u8]) -> String {
    let is_negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut magnitude = bytes.to_vec();
    if is_negative {
        let mut carry = true;
        for byte in &mut magnitude {
            let (negated, overflows) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (negated, overflows);
        }
    }
    // Words of 32 bits, the highest first, from which groups of nine digits are divided off.
    let mut words: Vec<u32> = magnitude
        .chunks(4)
        .rev()
        .map(|bytes| bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
        .collect();
    let mut groups = Vec::new();
    while words.iter().any(|word| *word != 0) {
        let mut rest = 0u64;
        for word in &mut words {
            let value = rest << 32 | u64::from(*word);
            *word = (value / 1_000_000_000) as u32;
            rest = value % 1_000_000_000;
        }
        groups.push(rest);
    }
    let mut digits = if is_negative { "-" } else { "" }.to_owned();
    digits += &groups.pop().unwrap_or(0).to_string();
    groups.iter().rev().for_each(|group| digits += &format!("{group:09}"));
    digits
}

fn is_decimal(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'E' | '+' | '-');
    text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(is_part)
}

/// A few bytes: a bytes object, or the call by which protocols 0 to 2 write one.
fn few_bytes(pickle: &Pickle, value: PickleValue) -> Option<Vec<u8>> {
    const MAX_LEN: usize = 4096;
    if let PickleValue::Bytes(span) = value {
        return Some(pickle.span(span)).filter(|bytes| bytes.len() <= MAX_LEN).map(<[u8]>::to_vec);
    }
    let instance = pickle.instance(value)?;
    match (instance.class, instance.args) {
        (PythonClass::Bytes, []) => Some(Vec::new()),
        (PythonClass::Encode, [text, PickleValue::Text(_)]) => {
            let text = pickle.text(*text).filter(|text| text.len() <= 2 * MAX_LEN)?;
            text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
        }
        _ => None,
    }
}

/// A date, time or both in ISO 8601, as Python's `isoformat` writes it. The arguments are the
/// fields as bytes, and perhaps a time zone.
fn instant(pickle: &Pickle, instance: Instance<'_>) -> Option<String> {
    let (fields, zone) = match (instance.class, instance.args) {
        (_, [fields]) => (fields, None),
        (PythonClass::DateTime | PythonClass::Time, [fields, zone]) => (fields, Some(*zone)),
        _ => return None,
    };
    let mut fields = few_bytes(pickle, *fields)?;
    // The highest bit of the month, or of the hour if there is none, is `fold`: the second of two
    // equal times when clocks are put back.
    let fold_at = match instance.class {
        PythonClass::DateTime => Some(2),
        PythonClass::Time => Some(0),
        _ => None,
    };
    if let Some(field) = fold_at.and_then(|at| fields.get_mut(at)) {
        *field &= 0x7f;
    }
    let zone = match zone {
        None | Some(PickleValue::None) => String::new(),
        Some(zone) => offset(micros_of_zone(pickle, zone)?),
    };
    match (instance.class, fields.as_slice()) {
        (PythonClass::Date, &[y1, y2, month, day]) => date([y1, y2, month, day]),
        (PythonClass::Time, &[h, m, s, a, b, c]) => Some(time([h, m, s, a, b, c])? + &zone),
        (PythonClass::DateTime, &[y1, y2, month, day, h, m, s, a, b, c]) => {
            let (date, time) = (date([y1, y2, month, day])?, time([h, m, s, a, b, c])?);
            Some(format!("{date}T{time}{zone}"))
        }
        _ => None,
    }
}

fn date([y1, y2, month, day]: [u8; 4]) -> Option<String> {
    let year = u16::from_be_bytes([y1, y2]);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u8::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    let is_date = (1..=9999).contains(&year) && (1..=days).contains(&day);
    is_date.then(|| format!("{year:04}-{month:02}-{day:02}"))
}

fn time([hour, minute, second, a, b, c]: [u8; 6]) -> Option<String> {
    let micros = u32::from_be_bytes([0, a, b, c]);
    let is_time = hour < 24 && minute < 60 && second < 60 && micros < 1_000_000;
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    is_time.then(|| format!("{hour:02}:{minute:02}:{second:02}{fraction}"))
}

/// The microseconds of a timedelta, whose arguments are days, seconds and microseconds.
fn micros(instance: Instance<'_>) -> Option<i128> {
    match (instance.class, instance.args) {
        (
            PythonClass::TimeDelta,
            &[PickleValue::Int(days), PickleValue::Int(seconds), PickleValue::Int(micros)],
        ) => {
            let seconds = i128::from(days) * 86_400 + i128::from(seconds);
            Some(seconds * 1_000_000 + i128::from(micros))
        }
        _ => None,
    }
}

/// The microseconds that a time zone is ahead of UTC.
fn micros_of_zone(pickle: &Pickle, zone: PickleValue) -> Option<i128> {
    let zone = pickle.instance(zone)?;
    let ahead = match (zone.class, zone.args) {
        (PythonClass::Utc, []) => 0,
        (PythonClass::Offset, [PickleValue::Int(seconds)]) => i128::from(*seconds) * 1_000_000,
        (PythonClass::TimeZone, [delta] | [delta, _]) => micros(pickle.instance(*delta)?)?,
        _ => return None,
    };
    Some(ahead).filter(|micros| micros.abs() < 86_400_000_000)
}

/// An offset from UTC: `+05:30`; with seconds and microseconds if there are any.
fn offset(ahead: i128) -> String {
    let (sign, micros) = (if ahead < 0 { '-' } else { '+' }, ahead.unsigned_abs());
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let mut text = format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 > 0 || micros > 0 {
        text += &format!(":{:02}", seconds % 60);
    }
    if micros > 0 {
        text += &format!(".{micros:06}");
    }
    text
}

/// A duration in ISO 8601: `P1DT2H`, `-PT0.000001S`.
fn duration(micros: i128) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, micros) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let part = |n: u128, unit: &str| if n == 0 { String::new() } else { format!("{n}{unit}") };
    let date = part(seconds / 86_400, "D");
    let fraction = match micros {
        0 => String::new(),
        _ => format!(".{micros:06}").trim_end_matches('0').to_owned(),
    };
    let rest = match (seconds % 60, micros) {
        (0, 0) => String::new(),
        (seconds, _) => format!("{seconds}{fraction}S"),
    };
    let time = part(seconds / 3600 % 24, "H") + &part(seconds / 60 % 60, "M") + &rest;
    match (date.is_empty(), time.is_empty()) {
        (true, true) => "PT0S".to_owned(),
        (_, true) => format!("{sign}P{date}"),
        (_, false) => format!("{sign}P{date}T{time}"),
    }
}

/// The text of a UUID, whose state holds it as an integer.
fn uuid(pickle: &Pickle, instance: Instance<'_>) -> Option<String> {
    let state = pickle.dict(instance.state)?;
    let (_, number) = state.iter().find(|(key, _)| pickle.text(*key) == Some("int"))?;
    let number: u128 = digits(pickle, *number).ok()?.parse().ok()?;
    let hex = format!("{number:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Some(parts.join("-"))
}

fn texts<'a>(pickle: &'a Pickle, instance: Instance<'_>) -> Option<Vec<&'a str>> {
    instance.args.iter().map(|arg| pickle.text(*arg)).collect()
}

/// A path of POSIX, as Python's pathlib joins and normalizes its parts.
fn posix_path(parts: &[&str]) -> String {
    let (mut root, mut names) = ("", Vec::new());
    for part in parts {
        if part.starts_with('/') {
            names.clear();
            let is_double = part.starts_with("//") && !part.starts_with("///");
            root = if is_double { "//" } else { "/" };
        }
        names.extend(part.split('/').filter(|name| !matches!(*name, "" | ".")));
    }
    let path = root.to_owned() + &names.join("/");
    if path.is_empty() { ".".to_owned() } else { path }
}

/// A path of Windows, as Python's pathlib joins and normalizes its parts.
fn windows_path(parts: &[&str]) -> String {
    let (mut drive, mut root, mut names) = (String::new(), "", Vec::<String>::new());
    for part in parts {
        let part = part.replace('/', "\\");
        let (own_drive, rest) = split_drive(&part);
        let is_other = !own_drive.is_empty() && !own_drive.eq_ignore_ascii_case(&drive);
        if is_other || rest.starts_with('\\') {
            names.clear();
            root = if rest.starts_with('\\') { "\\" } else { "" };
        }
        if !own_drive.is_empty() {
            drive = own_drive.to_owned();
        }
        let own = rest.split('\\').filter(|name| !matches!(*name, "" | "."));
        names.extend(own.map(str::to_owned));
    }
    // A share always has a root.
    let root = if drive.starts_with('\\') { "\\" } else { root };
    let path = drive + root + &names.join("\\");
    if path.is_empty() { ".".to_owned() } else { path }
}

/// The drive (`C:`) or share (`\\host\share`) at the start of a path, and the rest.
fn split_drive(path: &str) -> (&str, &str) {
    let length = if let Some(share) = path.strip_prefix("\\\\") {
        share.match_indices('\\').nth(1).map_or(path.len(), |(at, _)| at + 2)
    } else if path.as_bytes().get(1) == Some(&b':') {
        2
    } else {
        0
    };
    path.split_at(length)
}

/// A number, boolean or text of NumPy, whose arguments are its type and its bytes.
fn numpy(pickle: &Pickle, instance: Instance<'_>) -> Result<Scalar, String> {
    let damaged = || "a NumPy scalar with arguments that do not fit".to_owned();
    let [dtype, bytes] = instance.args else { return Err(damaged()) };
    let dtype = pickle.instance(*dtype).filter(|i| i.class == PythonClass::NumpyDtype);
    let dtype = dtype.ok_or_else(damaged)?;
    let code = dtype.args.first().and_then(|code| pickle.text(*code)).ok_or_else(damaged)?;
    let order = pickle.tuple(dtype.state).and_then(|state| pickle.text(*state.get(1)?));
    let is_little = matches!(order, None | Some("<" | "|" | "="));
    let bytes = few_bytes(pickle, *bytes).filter(|_| is_little);
    let Some(bytes) = bytes else { return Err(unknown_dtype(code)) };
    let float = |n: f32| Scalar::Float(n.to_string().parse().unwrap_or(f64::from(n)));
    Ok(match (code, bytes.as_slice()) {
        ("b1", [truth]) => Scalar::Json((*truth != 0).into()),
        ("i1" | "i2" | "i4" | "i8", bytes) => Scalar::Json(integer(code, bytes, true)?),
        ("u1" | "u2" | "u4" | "u8", bytes) => Scalar::Json(integer(code, bytes, false)?),
        ("f2", &[a, b]) => float(f16::from_le_bytes([a, b]).to_f32()),
        ("f4", &[a, b, c, d]) => float(f32::from_le_bytes([a, b, c, d])),
        ("f8", bytes) => Scalar::Float(f64::from_bits(unsigned(code, bytes)?)),
        (text, bytes) if text.starts_with('U') && bytes.len().is_multiple_of(4) => {
            let chars = bytes.chunks_exact(4).map(|unit| {
                char::from_u32(u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]))
            });
            let text = chars.collect::<Option<String>>().ok_or_else(damaged)?;
            Scalar::Json(text.trim_end_matches('\0').into())
        }
        _ => return Err(unknown_dtype(code)),
    })
}

fn integer(code: &str, bytes: &[u8], is_signed: bool) -> Result<Value, String> {
    let number = unsigned(code, bytes)?;
    let unused = 64 - 8 * bytes.len() as u32;
    Ok(match is_signed {
        true => ((number << unused).cast_signed() >> unused).into(),
        false => number.into(),
    })
}

/// The little-endian number of as many bytes as the type code says.
fn unsigned(code: &str, bytes: &[u8]) -> Result<u64, String> {
    if !matches!(bytes.len(), 1..=8) || code[1..].parse() != Ok(bytes.len()) {
        return Err("a NumPy scalar with arguments that do not fit".to_owned());
    }
    Ok(bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

fn unknown_dtype(code: &str) -> String {
    format!(
        "a NumPy scalar of the type '{}' has no JSON form: make it text or a number before the \
         store is saved",
        warpseek_ingest::shown(code)
    )
}
