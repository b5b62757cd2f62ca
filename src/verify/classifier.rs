//! Decisions: which class has the largest output.

use serde::Serialize;

use crate::input::Labels;

/// How the decisions of two classifiers compare.
#[derive(Clone, Debug, Serialize)]
pub struct Classifier {
    /// Outputs of the classifier.
    pub classes: usize,
    /// Samples on which both give the same class, in percent.
    pub agreement: f64,
    /// The float model's accuracy, where the samples are labelled.
    pub float: Option<Accuracy>,
    /// The quantised model's.
    pub quantised: Option<Accuracy>,
}

impl Classifier {
    /// A float model that hardly beats guessing was most likely fed or labelled otherwise than in training.
    pub(super) fn doubt(&self) -> Option<String> {
        /// Share of the way from guessing to perfection.
        const LEAST: f64 = 0.05;
        let guessing = 100.0 / self.classes as f64;
        let top1 = self.float?.top1;
        (top1 < guessing + LEAST * (100.0 - guessing)).then(|| {
            format!("the float model itself is right on {top1:.2} % only: check the preprocessing and which folder is which output (--classes)")
        })
    }
}

/// Right answers in percent of the labelled samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// The label is the class with the largest output.
    pub top1: f64,
    /// The label is among the five largest.
    pub top5: f64,
}

/// Counts over samples.
#[derive(Clone, Debug, Default)]
pub struct Votes {
    samples: usize,
    classes: usize,
    agreeing: usize,
    labelled: usize,
    float: Hits,
    quantised: Hits,
}

#[derive(Clone, Debug, Default)]
struct Hits {
    top1: usize,
    top5: usize,
}

impl Votes {
    /// Counts one sample's outputs of both models.
    pub fn count(&mut self, float: &[f32], quantised: &[f32], label: Option<usize>) {
        self.samples += 1;
        self.classes = float.len();
        let winner = (0..float.len()).find(|&class| rank(float, class) == 0);
        self.agreeing += usize::from(winner.is_some_and(|class| rank(quantised, class) == 0));
        if let Some(label) = label {
            self.labelled += 1;
            self.float.count(float, label);
            self.quantised.count(quantised, label);
        }
    }

    /// Adds the counts of further samples.
    pub fn merge(&mut self, more: &Self) {
        self.samples += more.samples;
        self.classes = self.classes.max(more.classes);
        self.agreeing += more.agreeing;
        self.labelled += more.labelled;
        self.float.merge(&more.float);
        self.quantised.merge(&more.quantised);
    }

    /// The figures; `None` where nothing was counted.
    pub fn finish(&self, labels: &Labels) -> Option<Classifier> {
        if self.samples == 0 {
            return None;
        }
        let counted = self.labelled > 0 && labels_are_outputs(labels, self.classes).is_ok();
        let accuracy = |hits: &Hits| {
            counted.then(|| Accuracy {
                top1: percent(hits.top1, self.labelled),
                top5: percent(hits.top5, self.labelled),
            })
        };
        Some(Classifier {
            classes: self.classes,
            agreement: percent(self.agreeing, self.samples),
            float: accuracy(&self.float),
            quantised: accuracy(&self.quantised),
        })
    }
}

impl Hits {
    fn count(&mut self, outputs: &[f32], label: usize) {
        if label >= outputs.len() {
            return;
        }
        let rank = rank(outputs, label);
        self.top1 += usize::from(rank < 1);
        self.top5 += usize::from(rank < 5);
    }

    fn merge(&mut self, more: &Self) {
        self.top1 += more.top1;
        self.top5 += more.top5;
    }
}

/// Whether labels can be read as output numbers; the error says why not, for a note.
pub fn labels_are_outputs(labels: &Labels, classes: usize) -> Result<(), String> {
    match labels {
        Labels::FolderOrder { folders } if *folders != classes => Err(format!(
            "no accuracy: {folders} folders of images, but {classes} outputs; --classes tells which folder is which output"
        )),
        Labels::ClassList { classes: named, .. } if *named != classes => Err(format!(
            "no accuracy: the class list names {named} classes, but the model has {classes} outputs"
        )),
        _ => Ok(()),
    }
}

/// How many classes stand before this one; among equals the first counts, as in numpy's `argmax`.
fn rank(outputs: &[f32], class: usize) -> usize {
    let own = outputs[class];
    outputs
        .iter()
        .enumerate()
        .filter(|&(i, &it)| it > own || (it == own && i < class))
        .count()
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_and_accuracy_are_counted_apart() {
        let mut votes = Votes::default();
        votes.count(&[0.0, 1.0, 0.5], &[0.0, 1.0, 2.0], Some(1));
        let mut more = Votes::default();
        more.count(&[3.0, 1.0, 0.5], &[3.0, 1.0, 2.0], Some(2));
        votes.merge(&more);
        let result = votes.finish(&Labels::FolderOrder { folders: 3 }).unwrap();
        assert_eq!(result.agreement, 50.0);
        assert_eq!(
            result.float,
            Some(Accuracy {
                top1: 50.0,
                top5: 100.0
            })
        );
        assert_eq!(
            result.quantised,
            Some(Accuracy {
                top1: 0.0,
                top5: 100.0
            })
        );
    }

    #[test]
    fn a_float_model_that_guesses_is_doubted() {
        let with = |classes, top1| {
            let float = Some(Accuracy { top1, top5: 100.0 });
            Classifier {
                classes,
                agreement: 100.0,
                float,
                quantised: float,
            }
            .doubt()
        };
        assert!(with(1000, 0.3).is_some() && with(10, 11.0).is_some() && with(2, 51.0).is_some());
        assert_eq!(
            [with(1000, 40.0), with(10, 60.0), with(2, 70.0)],
            [const { None }; 3]
        );
    }

    #[test]
    fn folders_that_are_not_the_outputs_give_no_accuracy() {
        let mut votes = Votes::default();
        votes.count(&[0.0, 1.0, 0.5], &[0.0, 1.0, 2.0], Some(1));
        let result = votes.finish(&Labels::FolderOrder { folders: 2 }).unwrap();
        assert_eq!(result.float, None);
    }

    #[test]
    fn among_equal_outputs_the_first_wins() {
        assert_eq!([rank(&[1.0, 1.0], 0), rank(&[1.0, 1.0], 1)], [0, 1]);
    }
}
