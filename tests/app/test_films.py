from videomae_jax.app.films import MOVES, write_films
from videomae_jax.app.uploads import check_upload
from videomae_jax.data.builtin import NUM_FRAMES
from videomae_jax.data.video import VideoFile


def test_each_photograph_of_validation_has_a_film_of_moves(builtin_clips, tmp_path):
    films = write_films(tmp_path)
    assert [film.name for film in films] == ["chelsea.mp4", "coffee.mp4", "rocket.mp4"]
    for film in films:
        assert check_upload(film) == []
        with VideoFile(film) as video:
            assert video.num_frames == len(MOVES) * NUM_FRAMES
