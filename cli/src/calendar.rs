//! Dates and times in UTC, as people read them.

/// A moment, split up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Moment {
    /// From microseconds since the epoch.
    pub(crate) fn from_micros(micros: i64) -> Self {
        let seconds = micros.div_euclid(1_000_000);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        Self { year, month, day, hour, minute, second }
    }

    /// As `2026-11-21 06:43:20 UTC`.
    pub(crate) fn readable(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }

    /// As `2026-11-21T06:43:20Z`, for programs.
    pub(crate) fn rfc3339(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// As `20261121-064320`, for names.
    pub(crate) fn compact(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Years are taken to begin in March, so that the leap day is their last, and are counted in
/// eras of 400 years, after which the calendar repeats.
fn date(days: i64) -> (i64, i64, i64) {
    let since_era_zero = days + 719_468;
    let (era, day_of_era) =
        (since_era_zero.div_euclid(146_097), since_era_zero.rem_euclid(146_097));
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day of a date, counted from 1970-01-01; the other way round of [`date`].
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Microseconds since the epoch of a time as RFC 3339 writes it, such as
/// `2026-11-21T06:43:20.5+01:00`; none where the text is no such time.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    // A leap second is taken as the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let days = day_number(year, month, day);
    if self::date(days) != (year, month, day) {
        return None;
    }
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - zone_seconds(zone)?;
    Some(seconds * 1_000_000 + micros(fraction)?)
}

/// Numbers of so many digits with a sign between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut all = [0; N];
    for (number, count) in all.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == count)?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(all)
}

/// How far a zone is ahead of UTC.
fn zone_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, ahead) = match zone.strip_prefix('-') {
        Some(ahead) => (-1, ahead),
        None => (1, zone.strip_prefix('+')?),
    };
    let [hours, minutes] = numbers(ahead, ':', [2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A fraction of a second; what is finer than a microsecond is cut off.
fn micros(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for micros in [0, -1_000_000, 951_782_400_000_000, 1_795_243_400_000_000] {
            assert_eq!(parse(&Moment::from_micros(micros).rfc3339()), Some(micros));
        }
        let noon = parse("2026-11-21T12:00:00Z").unwrap();
        assert_eq!(parse("2026-11-21 13:30:00+01:30"), Some(noon));
        assert_eq!(parse("2026-11-21t07:00:00.0000019-05:00"), Some(noon + 1));
        for wrong in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00Z",
            "26-01-01T00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00ZZ",
            "+026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (951_782_400_000_000, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199_999_999, "2024-02-29 23:59:59 UTC"),
            (1_795_243_400_000_000, "2026-11-21 06:43:20 UTC"),
            (4_107_542_400_000_000, "2100-03-01 00:00:00 UTC"),
        ];
        for (micros, expected) in cases {
            assert_eq!(Moment::from_micros(micros).readable(), expected);
        }
        assert_eq!(Moment::from_micros(1_795_243_400_000_000).compact(), "20261121-064320");
    }
}
