"""Every displayed equation of the report, once for Typst and once for people who write in LaTeX.

Bounds that are evaluated come from ``theory.printing.symbolic``; what stands here are definitions and proof steps.
"""

from __future__ import annotations

__all__ = ["EQUATIONS"]

EQUATIONS: dict[str, tuple[str, str]] = {
    "gap": (
        r"G(W) = abs(EE_z thin ell(W, z) - 1/n sum_(i=1)^n ell(W, z_i))",
        r"G(W) = \Big| \mathbb{E}_z\, \ell(W, z) - \frac1n \sum_{i=1}^n \ell(W, z_i) \Big|",
    ),
    "update": (
        r"W_l &= W_(0,l) + Delta W_l, quad Delta W_l = alpha/r B_l A_l, \ "
        r"B_l &in RR^(n_l times r), thick A_l in RR^(r times m_l)",
        r"W_l = W_{0,l} + \Delta W_l,\quad \Delta W_l = \tfrac{\alpha}{r} B_l A_l,\quad "
        r"B_l \in \mathbb{R}^{n_l \times r},\; A_l \in \mathbb{R}^{r \times m_l}",
    ),
    "xu-raginsky": (
        r'abs(EE thin upright("gen") (W, S)) &<= sigma sqrt((2 thin I(W; S)) / n), \ '
        r'I(W; S) &<= H(W) <= upright("bits") dot ln 2',
        r"|\mathbb{E}\,\mathrm{gen}(W,S)| \le \sigma\sqrt{\frac{2\, I(W;S)}{n}},\quad "
        r"I(W;S) \le H(W) \le \mathrm{bits}\cdot\ln 2",
    ),
    "theorem1": (
        r"G(W_0 + Delta W) <= min{ &G(W_0) + Phi_(Delta W), \ &G(Delta W) + Phi_(W_0) }",
        r"G(W_0 + \Delta W) \le \min\{\, G(W_0) + \Phi_{\Delta W},\; G(\Delta W) + \Phi_{W_0} \,\}",
    ),
    "phi": (
        r"Phi_(Delta W) &= 2 L_ell thin (U_L - V_L^a), quad Phi_(W_0) = 2 L_ell thin (U_L - V_L^d), \ "
        r"U_L &= C product_(l=1)^L L_l (a_l + d_l) + sum_(s=1)^L z_s product_(l>s) L_l (a_l + d_l), \ "
        r"V_L^b &= C product_(l=1)^L L_l b_l + sum_(s=1)^L z_s product_(l>s) L_l b_l",
        r"\begin{aligned} \Phi_{\Delta W} &= 2 L_\ell (U_L - V_L^a), \quad \Phi_{W_0} = 2 L_\ell (U_L - V_L^d), \\ "
        r"U_L &= C \prod_{l=1}^L L_l (a_l + d_l) + \sum_{s=1}^L z_s \prod_{l>s} L_l (a_l + d_l), \\ "
        r"V_L^b &= C \prod_{l=1}^L L_l b_l + \sum_{s=1}^L z_s \prod_{l>s} L_l b_l \end{aligned}",
    ),
    "recursion": (
        r"norm(h_l) &<= z_l + L_l (a_l + d_l) norm(h_(l-1)), \ "
        r"norm(h_l - g_l) &<= L_l (a_l norm(h_(l-1) - g_(l-1)) + d_l norm(h_(l-1)))",
        r"\begin{aligned} \|h_l\| &\le z_l + L_l (a_l + d_l) \|h_{l-1}\|, \\ "
        r"\|h_l - g_l\| &\le L_l \big(a_l \|h_{l-1} - g_{l-1}\| + d_l \|h_{l-1}\|\big) \end{aligned}",
    ),
    "difference": (
        r"U_l - V_l^a = L_l (a_l (U_(l-1) - V_(l-1)^a) + d_l U_(l-1))",
        r"U_l - V_l^a = L_l \big(a_l (U_{l-1} - V_{l-1}^a) + d_l U_{l-1}\big)",
    ),
    "transfer": (
        r"abs(ell(W, z) - ell(W_0, z)) <= L_ell D_L \ ==> quad G(W) <= G(W_0) + 2 L_ell D_L",
        r"|\ell(W, z) - \ell(W_0, z)| \le L_\ell D_L \;\Longrightarrow\; G(W) \le G(W_0) + 2 L_\ell D_L",
    ),
    "excess": (
        r'abs(EE thin upright("gen")) &<= min(sigma, D) sqrt((2 thin I(Delta W; S)) / n), \ '
        r"D &>= sup_(Delta W, z) abs(ell(W_0 + Delta W, z) - ell(W_0, z))",
        r"|\mathbb{E}\,\mathrm{gen}| \le \min(\sigma, D) \sqrt{\frac{2\, I(\Delta W; S)}{n}},\quad "
        r"D \ge \sup_{\Delta W, z} |\ell(W_0 + \Delta W, z) - \ell(W_0, z)|",
    ),
    "columns": (
        r"norm(Delta W thin h) &= norm(alpha/r B thin h_S) <= norm(Delta W)_2 thin norm(h_S) \ "
        r"&<= norm(Delta W)_2 thin norm(h)",
        r"\|\Delta W h\| = \|\tfrac{\alpha}{r} B h_S\| \le \|\Delta W\|_2 \|h_S\| \le \|\Delta W\|_2 \|h\|",
    ),
    "occam": (
        r'upright("kl") (hat(R) || R) <= (b ln 2 + ln(1 \/ delta)) / n \ '
        r'upright("with probability at least") 1 - delta',
        r"\mathrm{kl}(\hat R \,\|\, R) \le \frac{b \ln 2 + \ln(1/\delta)}{n} \quad "
        r"\text{with probability at least } 1 - \delta",
    ),
    "intruder": (
        r'u_j upright("is an intruder") quad <==> quad max_i abs(chevron.l u_j comma u_(0,i) chevron.r) < epsilon',
        r"u_j \text{ is an intruder} \iff \max_i |\langle u_j, u_{0,i} \rangle| < \varepsilon",
    ),
    "sharpness": (
        r"s_rho &= max_(norm(v) <= rho) ell(theta + v) - ell(theta), \ "
        r"overline(s)_rho &= EE_(norm(v) = rho) ell(theta + v) - ell(theta)",
        r"s_\rho = \max_{\|v\| \le \rho} \ell(\theta + v) - \ell(\theta),\quad "
        r"\bar s_\rho = \mathbb{E}_{\|v\| = \rho}\, \ell(\theta + v) - \ell(\theta)",
    ),
    "tau": (
        r'tau = 1/(N(N-1)) sum_(i != j) upright("sign") (mu_i - mu_j) thin upright("sign") (g_i - g_j)',
        r"\tau = \frac{1}{N(N-1)} \sum_{i \ne j} \operatorname{sign}(\mu_i - \mu_j) \operatorname{sign}(g_i - g_j)",
    ),
}
