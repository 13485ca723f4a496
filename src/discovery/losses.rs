//! Detects the loss of Pods and roles, after which the Service name is looked up frequently.

/// The Pods and the targets that are missing now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    /// Bit set of the requested targets that no named Pod serves.
    targets: u32,
    /// Serial numbers of the lost Pods: those that failed or are missing from DNS.
    pods: Vec<u64>,
}

impl Losses {
    /// Replaces the losses. Returns true if a target or a Pod has been lost since the last call.
    pub(crate) fn update(&mut self, targets: u32, pods: Vec<u64>) -> bool {
        let is_new = targets & !self.targets != 0 || pods.iter().any(|pod| !self.pods.contains(pod));
        *self = Self { targets, pods };
        is_new
    }

    /// Returns true if nothing is missing.
    pub(crate) fn is_empty(&self) -> bool {
        self.targets == 0 && self.pods.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_further_loss_is_new() {
        let mut losses = Losses::default();
        assert!(!losses.update(0, vec![]) && losses.is_empty());
        assert!(losses.update(0b01, vec![]));
        assert!(!losses.update(0b01, vec![]));
        assert!(losses.update(0b11, vec![]));
        assert!(losses.update(0b01, vec![7]));
        assert!(!losses.update(0, vec![7]) && !losses.is_empty());
        assert!(losses.update(0, vec![7, 8]));
        assert!(!losses.update(0, vec![]) && losses.is_empty());
        assert!(losses.update(0, vec![7]));
    }
}
