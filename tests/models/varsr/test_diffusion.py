import pytest
import torch

from nsarm_cli.models.varsr.diffusion import TRAINED_STEPS, Diffusion, refiner_loss, spaced

TEN = Diffusion.over(spaced(10))


def test_steps_run_from_the_first_trained_to_the_last():
    assert spaced(10) == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert spaced(2) == [0, 999]
    assert spaced(TRAINED_STEPS) == list(range(TRAINED_STEPS))


@pytest.mark.parametrize("steps", [-1, 0, 1, 1001])
def test_a_number_of_steps_that_cannot_be_is_refused(steps):
    with pytest.raises(ValueError, match="from 2 to 1000"):
        spaced(steps)


def test_taking_the_noise_away_gives_the_clean_vector_again():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 9, 4, generator=generator)
    steps = torch.arange(9)  # at the last step hardly anything of it is left
    again = TEN.clean(TEN.noised(clean, steps, noise), steps, noise)
    torch.testing.assert_close(again, clean, atol=1e-4, rtol=0)


def test_the_first_step_back_ends_at_the_clean_vector():
    clean, x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    mean = TEN.back(clean, x, torch.zeros(3, dtype=torch.long)).mean
    torch.testing.assert_close(mean, clean)


def test_the_right_noise_with_the_right_variance_costs_least():
    process = Diffusion.over(range(TRAINED_STEPS))
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.rand(2, 50, 8, generator=generator) * 2 - 1
    steps = torch.randint(1, 1000, (50,), generator=generator)
    smallest = torch.full_like(noise, -1)
    right = refiner_loss(process, clean, steps, noise, torch.cat([noise, smallest], -1))
    torch.testing.assert_close(right, torch.zeros(50), atol=1e-3, rtol=0)
    wrong = refiner_loss(process, clean, steps, noise, torch.cat([noise + 0.5, smallest], -1))
    assert (wrong > right + 0.2).all()
