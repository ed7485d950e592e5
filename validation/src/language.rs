//! Whether a vision-language pack's language model says what it should.

use crate::Verdict;
use crate::metrics::compare_real;
use serde::{Deserialize, Serialize};

/// The difference of what cannot be compared; JSON has no infinity.
const APART: f64 = f64::MAX;

/// How near the logits behind some tokens are to expected ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogitsAgreement {
    /// Tokens whose logits were compared.
    pub tokens: usize,
    /// Of these, those with the same likeliest next token.
    pub same: usize,
    /// The smallest cosine of a token's logits.
    pub cosine: f64,
    /// The largest difference of a token's logits over the largest of them.
    pub difference: f64,
}

/// A language model's logits against those that an engine gave for the exported files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedLogits {
    /// The engine.
    pub engine: String,
    /// How near they are.
    pub agreement: LogitsAgreement,
}

/// What is said of a picture, with the features of the device and with those of the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Words {
    /// What was asked.
    pub question: String,
    /// What is said with the reference's features.
    pub reference: String,
    /// What is said with the device's.
    pub device: String,
    /// How near the logits are, behind the same words.
    pub agreement: LogitsAgreement,
}

/// What was found of a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguageReport {
    /// The outcome: fails where a cosine is below the threshold, unchecked where nothing was compared.
    pub verdict: Verdict,
    /// Its logits against recorded ones.
    pub logits: Vec<RecordedLogits>,
    /// The words; absent where the vision encoder did not run on both sides.
    pub words: Option<Words>,
}

impl LogitsAgreement {
    /// Compare logits, a row a token. What is not there on both sides agrees in nothing.
    pub fn of(expected: &[Vec<f32>], found: &[Vec<f32>]) -> Self {
        let mut agreement =
            LogitsAgreement { tokens: expected.len(), same: 0, cosine: 1.0, difference: 0.0 };
        if expected.len() != found.len() {
            return LogitsAgreement { cosine: 0.0, difference: APART, ..agreement };
        }
        for (expected, found) in expected.iter().zip(found) {
            let (cosine, difference) = apart(expected, found);
            agreement.cosine = agreement.cosine.min(cosine);
            agreement.difference = agreement.difference.max(difference);
            agreement.same += usize::from(likeliest(expected) == likeliest(found));
        }
        agreement
    }

    /// The numbers, in words.
    pub fn describe(&self) -> String {
        let LogitsAgreement { tokens, same, cosine, difference } = self;
        format!(
            "cosine {cosine:.6}, largest difference {difference:.1e} of the largest logit, the same likeliest token in {same} of {tokens}"
        )
    }
}

impl LanguageReport {
    /// Judge what was compared.
    pub fn new(logits: Vec<RecordedLogits>, words: Option<Words>, threshold: f64) -> Self {
        let judge = |what: &str, agreement: &LogitsAgreement| {
            // A cosine that is no number passes nothing.
            let passes = agreement.cosine >= threshold;
            let reason = || format!("{what}: {} is below {threshold}", agreement.describe());
            let verdict = if passes { Verdict::Pass } else { Verdict::Fail { reason: reason() } };
            (String::from("logits"), verdict)
        };
        let against = |r: &RecordedLogits| judge(&format!("against {}", r.engine), &r.agreement);
        let mut verdicts: Vec<_> = logits.iter().map(against).collect();
        verdicts.extend(words.iter().map(|w| judge("with the device's features", &w.agreement)));
        let verdict = Verdict::of_parts(verdicts.iter().map(|(name, v)| (name.as_str(), v)));
        LanguageReport { verdict, logits, words }
    }

    /// The report in a few lines of text.
    pub(crate) fn summary(&self) -> Vec<String> {
        let logits = self.logits.iter().map(|recorded| {
            format!(
                "language: logits against {}: {}",
                recorded.engine,
                recorded.agreement.describe()
            )
        });
        let mut lines: Vec<String> = logits.collect();
        if lines.is_empty() {
            lines.push("language: logits unchecked, none were recorded".into());
        }
        if let Some(words) = &self.words {
            let said = if words.device == words.reference {
                format!("{:?}, as with the reference's features", words.device)
            } else {
                format!("{:?}, with the reference's features {:?}", words.device, words.reference)
            };
            lines.push(format!("language: {:?} is answered {said}", words.question));
            lines.push(format!(
                "language: logits behind these words: {}",
                words.agreement.describe()
            ));
        }
        lines
    }
}

/// The cosine of two rows, and their largest difference over the largest expected value.
fn apart(expected: &[f32], found: &[f32]) -> (f64, f64) {
    if expected.len() != found.len() || expected.is_empty() {
        return (0.0, APART);
    }
    let found = compare_real(found, 1.0, expected);
    let most = expected.iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
    (found.cosine, found.max_abs_error / f64::from(most))
}

fn likeliest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(agreement: LogitsAgreement) -> RecordedLogits {
        RecordedLogits { engine: "an engine".into(), agreement }
    }

    #[test]
    fn equal_logits_agree_in_all() {
        let rows = vec![vec![1.0, 2.0, -1.0], vec![0.0, 0.0, 3.0]];
        let agreement = LogitsAgreement::of(&rows, &rows);
        assert_eq!((agreement.tokens, agreement.same), (2, 2));
        assert!((agreement.cosine - 1.0).abs() < 1e-12);
        assert_eq!(agreement.difference, 0.0);
        assert!(LanguageReport::new(vec![recorded(agreement)], None, 0.999).verdict.is_pass());
    }

    #[test]
    fn the_worst_token_counts() {
        let expected = vec![vec![1.0, 0.0], vec![1.0, 0.0]];
        let found = vec![vec![1.0, 0.0], vec![0.6, 0.8]];
        let agreement = LogitsAgreement::of(&expected, &found);
        assert_eq!((agreement.same, agreement.tokens), (1, 2));
        assert!((agreement.cosine - 0.6).abs() < 1e-6 && (agreement.difference - 0.8).abs() < 1e-6);
        let report = LanguageReport::new(vec![recorded(agreement)], None, 0.999);
        assert!(report.verdict.is_fail() && report.verdict.reason().contains("an engine"));
    }

    #[test]
    fn nothing_that_is_missing_or_no_number_passes() {
        let rows = vec![vec![1.0, 2.0]];
        for found in [vec![], vec![vec![1.0]], vec![vec![f32::NAN, 2.0]], vec![vec![0.0, 0.0]]] {
            let agreement = LogitsAgreement::of(&rows, &found);
            let report = LanguageReport::new(vec![recorded(agreement)], None, 0.0001);
            assert!(report.verdict.is_fail(), "{found:?}");
        }
        let nothing = LanguageReport::new(Vec::new(), None, 0.999);
        assert!(!nothing.verdict.is_pass() && !nothing.verdict.is_fail());
    }
}
