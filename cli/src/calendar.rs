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

#[cfg(test)]
mod tests {
    use super::*;

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
