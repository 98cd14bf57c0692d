//! A time as the specification wants it.

use std::fmt;
use std::str::FromStr;

use crate::codec::corrupt;
use crate::error::{Error, Result};
use crate::message::Timestamp;

/// A time of RFC 3339. The text is kept as it was written, with its zone and all its digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Time {
    text: String,
    micros: i64,
}

impl Time {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same time; what is below a microsecond is cut off.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_micros(self.micros)
    }

    pub(super) fn read(text: &str) -> Result<Self, String> {
        match parse(text.as_bytes()) {
            Some(micros) => Ok(Self { text: text.to_owned(), micros }),
            None => Err(format!("the attribute \"time\" is {text:?}, not a time of RFC 3339")),
        }
    }
}

impl FromStr for Time {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::read(text).map_err(corrupt)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Timestamp> for Time {
    /// In UTC. What lies outside of the years 0 to 9999 becomes the nearest time within.
    fn from(timestamp: Timestamp) -> Self {
        let micros = timestamp.as_micros().clamp(FIRST, LAST);
        let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
        let text =
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z");
        Self { text, micros }
    }
}

/// Seconds of a day.
const DAY: i64 = 86_400;
/// The first and the last microsecond that the format has.
const FIRST: i64 = days_to(0, 1, 1) * DAY * 1_000_000;
const LAST: i64 = days_to(10_000, 1, 1) * DAY * 1_000_000 - 1;

/// Microseconds since the epoch.
fn parse(text: &[u8]) -> Option<i64> {
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| text.get(*at).map(u8::to_ascii_uppercase) != Some(*mark)) {
        return None;
    }
    let at = |from: usize, to: usize| number(text.get(from..to)?);
    let (year, month, day) = (at(0, 4)?, at(5, 7)?, at(8, 10)?);
    let (hour, minute, second) = (at(11, 13)?, at(14, 16)?, at(17, 19)?);
    let is_date = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    // A leap second is the first of the next minute.
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = split_fraction(&text[19..])?;
    let minutes = (days_to(year, month, day) * 24 + hour) * 60 + minute - offset(zone)?;
    Some((minutes * 60 + second) * 1_000_000 + fraction)
}

fn number(digits: &[u8]) -> Option<i64> {
    let add =
        |sum: i64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'));
    digits.iter().try_fold(0, add)
}

/// The fraction in microseconds, and what follows it.
fn split_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else { return Some((0, text)) };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = rest.split_at(count);
    let six = digits.iter().chain(b"000000").take(6).copied().collect::<Vec<u8>>();
    (count > 0).then_some((number(&six)?, zone))
}

/// How many minutes the zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let [_, h, i, b':', m, n] = *zone else { return None };
    let (hours, minutes) = (number(&[h, i])?, number(&[m, n])?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn days_of(year: i64, month: i64) -> i64 {
    let next = if month == 12 { days_to(year + 1, 1, 1) } else { days_to(year, month + 1, 1) };
    next - days_to(year, month, 1)
}

/// Days from the epoch to a date of the Gregorian calendar; years are counted from March.
const fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

/// The date that is so many days from the epoch.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_microsecond() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("1985-04-12T23:20:50.52Z", 482_196_050_520_000),
            ("1996-12-19T16:39:57-08:00", 851_042_397_000_000),
            ("1990-12-31T23:59:60Z", 662_688_000_000_000),
            ("1937-01-01T12:00:27.87+00:20", -1_041_337_172_130_000),
            ("2024-02-29t12:00:00.123456789z", 1_709_208_000_123_456),
            ("0000-01-01T00:00:00Z", FIRST),
            ("9999-12-31T23:59:59.999999Z", LAST),
        ];
        for (text, micros) in cases {
            let time: Time = text.parse().unwrap();
            assert_eq!((time.as_str(), time.timestamp().as_micros()), (text, micros));
        }
    }

    #[test]
    fn what_is_no_time_says_so() {
        let texts = [
            "",
            "yesterday",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00Zulu",
            "2024-01-01",
            "+024-01-01T00:00:00Z",
            "2024-01-01T00:00:00é",
        ];
        for text in texts {
            let error = text.parse::<Time>().unwrap_err();
            assert!(error.to_string().contains("RFC 3339"), "{text}: {error}");
        }
    }

    #[test]
    fn timestamps_become_times_and_come_back() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59.999999Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ];
        for (micros, text) in cases {
            assert_eq!(Time::from(Timestamp::from_micros(micros)).as_str(), text);
        }
        // A step that meets every part of days, months and years.
        for micros in (FIRST..LAST).step_by(86_399 * 1_000_000 * 97 + 1) {
            let time = Time::from(Timestamp::from_micros(micros));
            let read: Time = time.as_str().parse().unwrap();
            assert_eq!(read, time);
        }
    }
}
