"""Count words: a library that is parallel, and leaves it to its users where."""

from collections import Counter

from anymap import pmap


def tally(text):
    """Count the words of one text."""
    return Counter(text.lower().split())


def tally_all(texts):
    """Count the words of many texts, one result for each.

    Runs where the caller's anymap settings say; left alone, in processes.
    """
    return pmap(tally, texts, desc="tally")


def index(texts):
    """Return for each word the numbers of the texts that it is in."""
    places = {}

    def enter(number):
        for word in texts[number].lower().split():
            places.setdefault(word, set()).add(number)

    # It changes an object of its caller's, so it must run in this process, wherever everything else does.
    pmap(enter, range(len(texts)), require="shared_memory")
    return places
