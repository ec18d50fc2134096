"""Definitions of the tables' columns, in a line each."""

DEFINITIONS = {
    "POS": "the most salient pixels are removed first, 0 to 90% in ten steps; area under 'the class is still "
    "on top', 0 to 90",
    "NEG": "the same, the least salient first",
    "DEL": "the class's probability along the curve of POS",
    "INS": "the class's probability along the curve of NEG (not RISE's insertion)",
    "ADP": "average drop: 100 max(0, p - p_m) / p, with p on the image and p_m on image times mask; LTX "
    "masks as they are, other maps scaled to [0, 1]",
    "PIC": "share of images with p_m above p",
    "ADP_minmax": "ADP with every map scaled to [0, 1]",
    "PIC_minmax": "PIC with every map scaled to [0, 1]",
    "mask_area": "mean of the mask that multiplies the image, in percent; ranks nothing",
    "gini": "Gini index of the map, 0 even to 100 sparse; ranks nothing",
    "RISE_deletion": "RISE's deletion (Petsiuk et al. 2018), a row's worth of pixels at a time, to black "
    "unless another fill is named, 0 to 100",
    "RISE_insertion": "RISE's insertion, into the blurred image, 0 to 100",
    "AIC": "accuracy information curve (Kapishnikov et al. 2019): area under the median over images, 0 to "
    "100; wrongly classified images do not count",
    "SIC": "softmax information curve, the same with the probability; images under 0.8 do not count",
    "PA": "pixel accuracy over the whole set; foreground where a map is above its own mean",
    "mAP": "average precision of each image over [1 - S, S], averaged",
    "mIoU": "intersection over union over the whole set, mean of foreground and background",
    "mF1": "F1 of each image's foreground, averaged",
    "mAP_released": "mAP in float32, where 1 - S merges small scores: how the published column was computed",
    "mF1_released": "F1 of each row of pixels, averaged: how the published column was computed",
}
# The same in a few words, below the heads of the columns.
SHORT = {
    "POS": "most salient removed first", "NEG": "least salient removed first",
    "DEL": "probability, most salient removed", "INS": "probability, least salient removed",
    "ADP": "drop under the mask", "PIC": "images that rise under it",
    "ADP_minmax": "drop, maps scaled", "PIC_minmax": "rises, maps scaled",
    "mask_area": "share that is kept", "gini": "sparseness", "maps tried": "to choose this one",
    "RISE_deletion": "probability, pixels removed", "RISE_insertion": "probability, pixels inserted",
    "AIC": "top class by information", "SIC": "probability by information",
    "PA": "pixels right", "mAP": "average precision", "mIoU": "overlap, object and ground",
    "mF1": "F1 of the object", "mAP_released": "as published", "mF1_released": "as published",
}  # fmt: skip
VOID_SUFFIX = "_void_ignored"


def definition(name: str) -> str:
    """Definition of a metric, in a line; empty where it is not known."""
    plain = DEFINITIONS.get(name.removesuffix(VOID_SUFFIX), "")
    return f"{plain}; void pixels ignored" if plain and name.endswith(VOID_SUFFIX) else plain
