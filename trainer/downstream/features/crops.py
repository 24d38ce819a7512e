"""Where the crops of a video lie."""


def crop_regions(
    height: int, width: int, crops: int, share: float | None = None
) -> list[tuple[tuple[int, int, int, int], bool]]:
    """Regions of a picture and whether they are mirrored.

    Args:
        height, width: of the picture, pixels.
        crops: 1 (centre), 3 (start, centre, end of the longer side), 5 (corners, then the centre), or 10.
        share: side of a crop over the shorter side; None is 1, or 0.875 for 5 and 10.

    Returns:
        ((top, left, side, side), mirrored) of each crop; of 10 the first five are not mirrored.
    """
    share = share if share is not None else (0.875 if crops >= 5 else 1.0)
    side = max(1, round(share * min(height, width)))
    down, right = height - side, width - side
    centre = (down // 2, right // 2)
    if crops == 1:
        corners = [centre]
    elif crops == 3:
        corners = [(0, centre[1]), centre, (down, centre[1])]
        if width >= height:
            corners = [(centre[0], 0), centre, (centre[0], right)]
    else:
        corners = [(0, 0), (0, right), (down, 0), (down, right), centre]
    plain = [((top, left, side, side), False) for top, left in corners]
    if crops < 10:
        return plain
    # torchvision mirrors the picture before it cuts: its first corner is the mirror image of the second one here
    return plain + [(plain[k][0], True) for k in (1, 0, 3, 2, 4)]
