"""What each figure shows, said so that it can be printed below it."""

__all__ = ["CAPTIONS"]

CAPTIONS = {
    "qualitative": "Frames, labels, and what each network predicts.",
    "downsampling": "Labels of feature cells: plain subsampling against the histogram of Sec. 3, which leaves a cell "
    "void where the second most frequent class has at least half as many of its pixels as the first.",
    "shares": "Share of each class among the labelled pixels, and among the labelled feature cells by both schemes.",
    "norms": "Norms (radius, logarithmic) and angles to the class's prototype (around the class's sector, scaled: 90° "
    "would fill four fifths of it; the side is random). Grey: median of the norms of this sample, balanced over "
    "classes, and the band that holds 95 % of them. A prototype is the mean over all labelled cells of its class.",
    "angles": "Mean angle of each prototype to all others; boxes are quartiles over classes. The feature vectors are "
    "not negative, so 90° is the most there can be.",
    "tsne": "t-SNE of the directions of feature vectors (norms taken out; 50 principal components; perplexity 30). "
    "Distances between clusters mean little.",
    "pseudo_labels": "Accuracy (of the cells that the network gave a class) and coverage (of the cells whose class it "
    "is, given any) of pseudo-labels, judged by the histogram labels of the truth.",
    "reliability": "Accuracy against confidence in 15 equal bins over all labelled pixels; ECE is the mean gap, "
    "weighted by pixels.",
    "borders": "Mean IoU of the pixels in each band of distance from the nearest place where the label changes, void "
    "included.",
    "curves": "What the run logged: loss terms, unweighted, as means over each interval of the log, and the latest "
    "value of each diagnostic.",
    "gradients": "Norm of each unweighted term's gradient on the backbone (log.gradients).",
}
"""By the name `analyze --figures` takes."""
