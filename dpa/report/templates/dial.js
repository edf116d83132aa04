// The dial over the samples: one prompt and one direction at a time. Without it, and on paper, all are shown.
(() => {
  const form = document.getElementById("dial");
  const steered = form ? [...document.querySelectorAll("#prompt-1 .card[data-dial]")] : [];
  if (steered.length < 2) return;
  const [prompt, direction, all] = ["prompt", "direction", "all"].map((id) => document.getElementById("dial-" + id));
  const sections = [...document.querySelectorAll("section.prompt")];
  direction.max = steered.length - 1;
  const turn = () => {
    const asked = steered[direction.value].dataset.dial;
    form.querySelector("output").textContent = asked;
    direction.setAttribute("aria-valuetext", asked);
    sections.forEach((section, place) => {
      section.classList.toggle("off", !all.checked && place !== Number(prompt.value));
      section.classList.toggle("turned", !all.checked);
      for (const card of section.querySelectorAll(".card")) {
        const shown = card.dataset.positions.split(" ").includes(direction.value);
        card.classList.toggle("off", !all.checked && !shown);
      }
    });
    prompt.disabled = direction.disabled = all.checked;
  };
  const follow = () => {
    const named = sections.findIndex((section) => "#" + section.id === location.hash);
    if (named < 0) return;
    prompt.value = named;
    turn();
    sections[named].scrollIntoView();
  };
  form.addEventListener("input", turn);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);
  form.hidden = false;
  turn();
  follow();
})();
