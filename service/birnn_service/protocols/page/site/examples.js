// Sequences to begin with, by what an encoder reads.

const EXAMPLES = {
  smiles: [
    "CC(=O)Oc1ccccc1C(=O)O", "OC(=O)c1ccccc1O", "CC(=O)Nc1ccc(O)cc1", "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "Cn1c(=O)c2[nH]cnc2n(C)c1=O", "CCO", "CCCCCCCC", "c1ccccc1", "NCC(=O)O",
  ],
  text: [
    "A man plays the guitar.", "Someone plays an instrument.", "Two dogs run across the field.",
    "A puppy is playing in the grass.", "The kettle is boiling.", "Prices rose more slowly this quarter.",
    "The train to the coast leaves at noon.", "She reads a book by the window.",
  ],
};

export const MOST_EXAMPLES = 20;

// None for tokenizers that may read anything: what the user has encoded stands in for them.
export const examplesFor = (tokenizer) => EXAMPLES[tokenizer] ?? [];
