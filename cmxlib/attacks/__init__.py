"""Attacks: from what an attacker holds to an estimate of the cipher, or to what it is worth without one.

    matching      what they share: assignments, moments, and ``share_recovered``, the measure of how much was found
    on_images     encrypted images alone, pairs with plain ones, images of one's own choice
    higher_order  encrypted images alone, by independent components, for orthogonal ciphers
    on_repairs    the same against keys by position and single bits, and with the encrypted model
    on_models     the encrypted model, and plain images
    adversarial   examples that a model misreads, by what their maker knows
    metrics       how alike two images are

An attack is a function of what the attacker holds (what is encrypted first, be it images or a model, then what is known
beside it, then ``patch_size`` and ``steps``) that returns an estimated cipher, made without a key
(``PatchCipher.from_entries`` or ``from_affine``). To add one, write such a function in the module of what it holds, and
have a table of `cmxlib.study` measure it.
"""
