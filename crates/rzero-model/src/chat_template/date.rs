//! A date, told in the forms of `strftime`: what a template may know of the day.

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    year: u32,
    month: u32,
    day: u32,
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// A day of the years 1000 to 9999, if there is one such.
    #[must_use]
    pub const fn new(year: u32, month: u32, day: u32) -> Option<Self> {
        let is_day = year >= 1000 && year <= 9999 && month >= 1 && month <= 12 && day >= 1 && day <= days_of(year, month);
        if is_day { Some(Self { year, month, day }) } else { None }
    }

    /// The date in a `strftime` format, in English, at midnight.
    ///
    /// # Errors
    /// When the format asks for something that is not told here.
    pub fn format(self, format: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let mut directive = characters.next();
            let is_padded = directive != Some('-');
            if !is_padded {
                directive = characters.next();
            }
            let Some(told) = directive.and_then(|directive| self.part(directive)) else {
                let directive = directive.map_or_else(String::new, String::from);
                return Err(format!("strftime_now does not serve `%{directive}`"));
            };
            text.push_str(if is_padded { &told } else { without_padding(&told) });
        }
        Ok(text)
    }

    fn part(self, directive: char) -> Option<String> {
        let Self { year, month, day } = self;
        let weekday = self.weekday();
        let month_name = MONTHS[month as usize - 1];
        let weekday_name = WEEKDAYS[weekday as usize];
        Some(match directive {
            'Y' => format!("{year}"),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'e' => format!("{day:2}"),
            'j' => format!("{:03}", self.day_of_year()),
            'B' => month_name.to_owned(),
            'b' | 'h' => month_name[..3].to_owned(),
            'A' => weekday_name.to_owned(),
            'a' => weekday_name[..3].to_owned(),
            'w' => format!("{weekday}"),
            'u' => format!("{}", if weekday == 0 { 7 } else { weekday }),
            'F' => format!("{year}-{month:02}-{day:02}"),
            'D' => format!("{month:02}/{day:02}/{:02}", year % 100),
            'H' | 'M' | 'S' => "00".to_owned(),
            'I' => "12".to_owned(),
            'p' => "AM".to_owned(),
            'T' => "00:00:00".to_owned(),
            'R' => "00:00".to_owned(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }

    fn day_of_year(self) -> u32 {
        (1..self.month).map(|month| days_of(self.year, month)).sum::<u32>() + self.day
    }

    /// 0 for Sunday: the first day of the year 1 was a Monday.
    fn weekday(self) -> u32 {
        let before = self.year - 1;
        (before * 365 + before / 4 - before / 100 + before / 400 + self.day_of_year()) % 7
    }
}

const fn days_of(year: u32, month: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `%-d`: a number without the zeros or spaces before it.
fn without_padding(told: &str) -> &str {
    let is_number = told.trim_start().bytes().all(|byte| byte.is_ascii_digit());
    let bare = told.trim_start_matches(['0', ' ']);
    match (is_number, bare) {
        (false, _) => told,
        (true, "") => "0",
        (true, bare) => bare,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn days_are_told_as_strftime_tells_them() {
        let tell = |year, month, day, format| Date::new(year, month, day).unwrap().format(format);
        assert_eq!(tell(2024, 7, 26, "%d %b %Y").unwrap(), "26 Jul 2024");
        // 1 March 2000 was a Wednesday, the 61st day of a leap year; 2 January 2026 was a Friday.
        assert_eq!(tell(2000, 3, 1, "%A, %B %-d, %Y (%j) %y%%").unwrap(), "Wednesday, March 1, 2000 (061) 00%");
        assert_eq!(tell(2026, 1, 2, "%a %F %H:%M:%S %e %-m").unwrap(), "Fri 2026-01-02 00:00:00  2 1");
        assert!(tell(2026, 1, 2, "%Q").unwrap_err().contains("%Q"));
        assert!(tell(2026, 1, 2, "100%").is_err());
        assert_eq!((Date::new(2023, 2, 29), Date::new(1900, 2, 29), Date::new(2024, 13, 1)), (None, None, None));
    }
}
