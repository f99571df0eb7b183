"""English sentences written for these files, and longer texts put together from them."""

import random

SENTENCES = [
    "The lighthouse on the northern cape sends two white flashes every fifteen seconds.",
    "Bees return to the hive with pollen packed into small baskets on their hind legs.",
    "A slow river drops its sand first and carries the finest mud out to the sea.",
    "The night train leaves platform seven at 22:45 and reaches the coast before sunrise.",
    "Copper roofs turn green because rain and air cover the metal with a thin salt layer.",
    "Bakers let the dough rest in the cold so that the flavour has time to develop.",
    "The museum opens at ten, but the reading room above it stays closed on Mondays.",
    "Granite cools deep below the ground, which gives its crystals time to grow large.",
    "Most swallows leave in September and cross the desert in less than a week.",
    "A search engine that ranks by meaning can find a passage without a shared word.",
    "The old bridge carries trams, bicycles and, twice a year, a flock of sheep.",
    "Salt lowers the freezing point of water, so the harbour stays open in winter.",
    "Her grandmother repaired clocks in a narrow workshop behind the town hall.",
    "Glass is not a slow liquid; old window panes were simply made uneven.",
    "The committee measured the noise at night and found it above the legal limit.",
    "Tea leaves are rolled, dried and sorted before they are packed into wooden boxes.",
    "A glacier moves faster in the middle than at its edges, where rock holds it back.",
    "The compiler refuses the program because a borrowed value does not live long enough.",
    "Owls hear a mouse under the snow and strike without seeing it.",
    "Three hundred volunteers planted birch and alder along the drained canal.",
    "The vaccine protects most adults for about ten years after the second dose.",
    "An index keeps one row for every chunk of text and one number for every dimension.",
    "Wind turbines stop when a storm grows too strong for their blades.",
    "The potter mixes ash and clay to make a glaze that melts into dark blue glass.",
    "Children learn to count with pebbles long before they can write a number.",
    "A reranker reads the question and the passage together and returns a single score.",
    "The ferry was late because thick fog covered the strait until noon.",
    "Cheese ages in caves where the air stays cool and damp in every season.",
    "The library lends seeds as well as books and asks readers to bring some back.",
    "Volcanic soil holds water well and feeds vineyards on the southern slope.",
    "The orchestra tuned to the oboe while the last guests looked for their seats.",
    "Cosine similarity compares the direction of two vectors and ignores their length.",
    "A blacksmith judges the heat of iron by its colour, from dull red to bright yellow.",
    "The court ruled that the tenants may keep the garden they had planted.",
    "Whales sing in low tones that travel hundreds of kilometres through the ocean.",
    "The surgeon closed the wound with seven stitches and a thin strip of tape.",
    "Solar panels lose a little power when they grow hot in the summer sun.",
    "Printers once set every letter by hand and returned it to its box afterwards.",
    "The satellite passes over the same field every five days and takes a picture.",
    "Rust forms wherever iron, oxygen and water meet for long enough.",
    "The goalkeeper dived to her left, touched the ball and pushed it past the post.",
    "Lichens grow on bare stone and slowly break it down into the first thin soil.",
    "The price of wheat rose sharply after two dry summers in a row.",
    "Each passage is cut into windows that overlap, so that no sentence is lost.",
    "A good knife is hard enough to stay sharp and soft enough not to break.",
    "The mayor promised new tram lines to the eastern districts by the end of the year.",
    "Cats sleep for most of the day and hunt at dawn and dusk.",
    "Tides are highest when the sun, the moon and the earth stand in one line.",
    "The translator kept the rhythm of the poem and gave up the rhyme.",
    "Sourdough bread stays fresh for several days when it is wrapped in cloth.",
    "The fire brigade reached the warehouse within six minutes of the alarm.",
    "Memory bandwidth, not arithmetic, limits how fast a large matrix can be scanned.",
    "Mountain hikers should turn back before noon when clouds gather over the ridge.",
    "The painter ground her own pigments from ochre, chalk and burnt bones.",
    "A falling drop of rain is round, not pointed as it is often drawn.",
    "The village school has eleven pupils, two teachers and one very old dog.",
    "Engineers tested the dam by filling the reservoir one metre at a time.",
    "Spices crossed the continent by camel long before ships carried them around it.",
    "The patient was asked to walk for six minutes while a nurse noted her pulse.",
    "Trees along the avenue were pruned in February, before the sap began to rise.",
    "The archive holds letters, maps and more than 4,000 photographs of the harbour.",
    "Sound needs a medium, so an explosion in empty space would be silent.",
    "The chess champion offered a draw after forty moves and shook hands.",
    "Farmers rotate beans, barley and clover to keep nitrogen in the ground.",
    "A recipe for fish soup begins with bones, onions, fennel and white wine.",
    "The elevator was stuck between the third and the fourth floor for an hour.",
    "Migrating eels swim thousands of kilometres to the place where they were born.",
    "The contract ends on 31 December unless one side asks to renew it.",
    "Snow reflects most of the sunlight that falls on it and so keeps itself cold.",
    "The answer cites two passages, and every quoted word stands in one of them.",
    "A tailor measures twice, marks the cloth with chalk and cuts once.",
    "The telescope needs a dark sky, dry air and a great deal of patience.",
]


def words(count: int, seed: int) -> list[str]:
    """The first `count` words of the sentences in an order that `seed` fixes."""
    generator = random.Random(seed)
    out: list[str] = []
    while len(out) < count:
        # Only random() is promised to give the same stream in every Python version.
        order = sorted((generator.random(), i) for i in range(len(SENTENCES)))
        for _, i in order:
            out.extend(SENTENCES[i].split())
    return out[:count]


def text_of_tokens(count: int, seed: int, tokens_in) -> str:
    """Words whose tokens add up to exactly `count`; `tokens_in(word)` counts without specials."""
    out: list[str] = []
    left = count
    for word in words(4 * count, seed):
        needed = tokens_in(word)
        if needed <= left:
            out.append(word)
            left -= needed
        if left == 0:
            return " ".join(out)
    raise ValueError(f"no word fits the last {left} of {count} tokens")
