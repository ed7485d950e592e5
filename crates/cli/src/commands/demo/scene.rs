//! What a text says of the bundled models' drawings.

const SHAPES: [&str; 6] = ["circle", "square", "triangle", "diamond", "cross", "ring"];
const COLOURS: [&str; 8] = ["red", "green", "blue", "yellow", "purple", "orange", "white", "black"];
const SIZES: [&str; 2] = ["small", "large"];
const POSITIONS: [&str; 5] = ["top", "bottom", "left", "right", "center"];

/// One drawing as a text has it; what it does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    shape: Option<String>,
    colour: Option<String>,
    background: Option<String>,
    size: Option<String>,
    position: Vec<String>,
}

impl Scene {
    /// Read a prompt or a caption: the colour before "background" is the background's, another one the shape's.
    pub fn read(text: &str) -> Self {
        let words: Vec<String> = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let mut scene = Scene::default();
        for (at, word) in words.iter().enumerate() {
            let is = |list: &[&str]| list.contains(&word.as_str());
            if is(&COLOURS) {
                let behind = words.get(at + 1).is_some_and(|next| next == "background");
                let slot = if behind { &mut scene.background } else { &mut scene.colour };
                slot.get_or_insert_with(|| word.clone());
            } else if is(&SHAPES) {
                scene.shape.get_or_insert_with(|| word.clone());
            } else if is(&SIZES) {
                scene.size.get_or_insert_with(|| word.clone());
            } else if is(&POSITIONS) {
                scene.position.push(word.clone());
            }
        }
        scene
    }

    /// Whether it has all that another text asks for; `None` where that asks for nothing.
    pub fn has(&self, asked: &Scene) -> Option<bool> {
        let pairs = [
            (&asked.shape, &self.shape),
            (&asked.colour, &self.colour),
            (&asked.background, &self.background),
            (&asked.size, &self.size),
        ];
        let said = pairs.iter().filter(|(asked, _)| asked.is_some());
        let placed = !asked.position.is_empty();
        if said.clone().count() == 0 && !placed {
            return None;
        }
        Some(said.clone().all(|(a, b)| a == b) && (!placed || asked.position == self.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_has_what_a_prompt_asks_for() {
        let caption = Scene::read("a large red circle at the top left of a blue background");
        for (prompt, has) in [
            ("a large red circle at the top left of a blue background", Some(true)),
            ("Red circle, blue background", Some(true)),
            ("a red circle at the left of a blue background", Some(false)),
            ("a blue circle on a red background", Some(false)),
            ("a small red circle", Some(false)),
            ("a red ring", Some(false)),
            ("an astronaut", None),
        ] {
            assert_eq!(caption.has(&Scene::read(prompt)), has, "{prompt}");
        }
    }
}
