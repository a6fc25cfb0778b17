//! The rate of one client's messages (protocols.md section 0, rate).

/// A fixed window that starts with the first message after the last window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Milliseconds since the server's start, the low 32 bits.
    start_ms: u32,
    count: u32,
}

impl Window {
    /// Counts a message; says whether it is within `max` messages per `window_ms`. Messages over the limit count too.
    pub fn allows(&mut self, now_ms: u64, window_ms: u32, max: u32) -> bool {
        let now_ms = now_ms as u32;
        if self.count == 0 || now_ms.wrapping_sub(self.start_ms) >= window_ms {
            *self = Self { start_ms: now_ms, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= max
    }

    /// Milliseconds until the window ends; 0 when it has ended, or none has begun.
    #[must_use]
    pub fn left_ms(&self, now_ms: u64, window_ms: u32) -> u64 {
        let elapsed_ms = (now_ms as u32).wrapping_sub(self.start_ms);
        if self.count == 0 { 0 } else { u64::from(window_ms.saturating_sub(elapsed_ms)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_when_it_has_lasted() {
        let mut window = Window::default();
        assert_eq!(window.left_ms(7, 1_000), 0);
        window.allows(5_000, 1_000, 2);
        let left: Vec<u64> = [5_000, 5_400, 6_000, 9_000].map(|now| window.left_ms(now, 1_000)).into();
        assert_eq!(left, [1_000, 600, 0, 0]);
    }

    #[test]
    fn a_window_starts_with_the_first_message_after_the_last() {
        let mut window = Window::default();
        let said: Vec<bool> = [5_000, 5_001, 5_002, 5_999, 6_000, 7_500, 7_501, 8_499, 8_500]
            .map(|now| window.allows(now, 1_000, 2))
            .into();
        assert_eq!(said, [true, true, false, false, true, true, true, false, true]);
    }
}
